"""The models of one task, and the options of whichever of its edges the chosen one takes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from conjure.serve.making import route
from conjure.serve.state import Server
from conjure.studio.choices import able
from conjure.studio.following import QUIET
from conjure.studio.forms import Form, form
from conjure.tasks.table import Edge, everything


class TaskForms:
    """Builds a list of models and a form for each edge of a task, of which one is seen. A listener takes `inputs` as
    the last of its inputs: the model, then the values that `options` reads."""

    def __init__(
        self, home: Callable[[], Server], tab: gr.Tab, task: str, *, first: Sequence[str] = (),
        own: Sequence[str] = (), prefix: str,
    ) -> None:  # fmt: skip
        """`first` are the options that stand first, `own` those that the page sets itself."""
        self.home = home
        self.edges = [edge for edge in everything() if edge.task == task]
        self.model = gr.Dropdown([], label="Model", elem_id=f"{prefix}-model", filterable=False)
        self.forms: list[Form] = []
        groups: list[gr.Column] = []
        for edge in self.edges:
            options = route(edge)["options"].get("properties", {})
            ordered = {name: options[name] for name in first if name in options} | options
            with gr.Column(visible=edge is self.edges[0]) as group:
                self.forms.append(form({"properties": ordered}, leave_out=own, prefix=f"{prefix}-{edge.module}"))
            groups.append(group)
        tab.select(self._offer, [self.model], [self.model], **QUIET)
        self.model.change(self._turned, [self.model], groups, **QUIET)

    @property
    def inputs(self) -> list[Any]:
        return [self.model, *(each for one in self.forms for each in one.components)]

    def options(self, model: str | None, values: Sequence[Any]) -> dict[str, Any]:
        """What the form of the model's edge says; `values` are those of all forms."""
        now, at = self._edge(model), 0
        for edge, one in zip(self.edges, self.forms, strict=True):
            if edge is now:
                return one.options(values[at : at + len(one.components)])
            at += len(one.components)
        raise AssertionError("an edge of the task")

    async def _offer(self, chosen: str | None) -> Any:
        names = await asyncio.to_thread(self._models)
        return gr.Dropdown(names, value=chosen if chosen in names else (names or [None])[0])

    def _models(self) -> list[str]:
        offered = self.home().keeper.offered()
        return list(dict.fromkeys(name for edge in self.edges for name in able(edge, offered) if name))

    def _edge(self, model: str | None) -> Edge:
        offered = self.home().keeper.offered()
        return next((edge for edge in self.edges if model in able(edge, offered)), self.edges[0])

    async def _turned(self, model: str | None) -> list[Any]:
        """The options of the chosen model."""
        now = await asyncio.to_thread(self._edge, model)
        return [gr.Column(visible=edge is now) for edge in self.edges]
