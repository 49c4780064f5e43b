"""What a server is told when it starts: where it listens, who may come in, and how much of anything it takes."""

from __future__ import annotations

import ipaddress
import secrets
from dataclasses import dataclass, field, replace
from pathlib import Path

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Beyond these a request is refused: 413 for what is too large, 429 for what comes too often, 408 and 504 for what
    takes too long."""

    body_bytes: int = 64 * MIB
    files: int = 16
    pixels: int = 50_000_000
    """Of all pictures of one request together."""
    sound_seconds: int = 7200
    """Of all sounds of one request together."""
    characters: int = 4 * MIB
    """Of all texts of one request together."""
    texts: int = 512
    """Requests for texts at once: they share a model, and each costs a little of every step."""
    inputs: int = 2048
    """Texts of one request whose vectors are asked for."""
    body_seconds: float = 60.0
    """For a request's body to arrive."""
    head_seconds: float = 20.0
    """For the head of a request to arrive."""
    stall_seconds: float = 60.0
    """For which a client may take nothing of its answer."""
    work_seconds: float = 3600.0
    """For the work on one request, waiting aside."""
    queue: int = 64
    """Requests that may wait."""
    count: int = 16
    """Results of one request."""
    links: int = 1000
    """Results kept for links, the oldest dropped first."""
    link_seconds: float = 3600.0
    jobs: int = 256
    """Jobs that may wait."""
    jobs_kept: int = 1000
    """Jobs that have ended and can still be asked about, the oldest dropped first."""
    jobs_seconds: float = 14 * 86400.0
    """After which a job that has ended is forgotten; its results in the history stay."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """`key` "" lets everybody in and is for loopback addresses only; `models` are folders offered beside those of this
    machine; `memory_bytes` bounds the weights held at once; `history` is where results are kept, None for nowhere."""

    host: str = "127.0.0.1"
    port: int = 8001
    key: str = ""
    memory_bytes: int = 4 << 30
    models: tuple[Path, ...] = ()
    origins: frozenset[str] = frozenset()
    """Origins besides the server's own whose pages may call it: "https://app.example"."""
    links_from: frozenset[str] = frozenset()
    """Hosts from which links of clients are fetched, "*" for all that are public; none unless it is said."""
    history: Path | None = None
    studio: bool = False
    """Whether a page is served at `/`, which is then allowed what such a page needs."""
    limits: Limits = field(default_factory=Limits)

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the address."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether a host's name is one of this machine alone."""
    if host in LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def secured(settings: Settings) -> Settings:
    """The same with a key, drawn at random where an address that others reach has none."""
    if settings.key or settings.loopback:
        return settings
    return replace(settings, key=secrets.token_urlsafe(24))
