// Two layers of picture networks on a CPU, in float32: 3x3 convolutions and attention among many tokens.
//
// Plain C interface (mirrored in pixels.py), no dependency but the C++20 library. Pictures have their channels
// innermost, [B][H][W][C].
//
// A convolution multiplies 16 times where the definition multiplies 36 times (Winograd's F(2x2, 3x3); Lavin and Gray
// 2015, arXiv 1509.09308): tiles of 4x4 pixels and kernels are transformed, products of matrices are taken in each of
// the 16 places, and what comes out is transformed to 2x2 pixels. All coefficients are 0, 1, -1 and 1/2, so rounding is
// that of any other order of the sum. If every pixel stands for 2x2 equal ones, rows 1 and 2 of a tile are equal, their
// difference is 0, and 9 of the 16 places are left.
//
// Attention never holds all scores: blocks of keys pass by, and the softmax is put right when a larger score comes
// (Dao et al. 2022, arXiv 2205.14135).
//
// Legend: B batch, H height, W width, C channels in, K channels out, P tiles, e one of the 16 places.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <thread>
#include <utility>
#include <vector>

typedef float v16 __attribute__((vector_size(64)));
typedef float v16u __attribute__((vector_size(64), aligned(4)));
typedef int32_t i16 __attribute__((vector_size(64)));

namespace {

#if defined(__AVX512F__)
constexpr int ROWS = 12, REGISTERS = 24;  // of 32 registers of 16 floats
#else
constexpr int ROWS = 3, REGISTERS = 6;  // a vector of 16 floats is 2 or 4 registers
#endif
constexpr int WIDE = 32;  // outputs that are computed at a time

inline v16 load(const float* p) { return *reinterpret_cast<const v16u*>(p); }
inline void store(float* p, v16 x) { *reinterpret_cast<v16u*>(p) = x; }
inline v16 splat(float x) { return x - v16{}; }  // not x + 0, which is an addition: -0 + 0 is 0

struct Free {
    void operator()(float* p) const { std::free(p); }
};
using Floats = std::unique_ptr<float, Free>;
Floats floats(size_t count) {
    return Floats(static_cast<float*>(std::aligned_alloc(64, (count * sizeof(float) + 63) / 64 * 64)));
}

// f(number, thread) for all numbers below `count`. Who is done takes the next: no thread waits for one that the system
// has stopped.
template <class F> void parallel(int64_t count, int threads, const F& f) {
    std::atomic<int64_t> next{0};
    auto work = [&](int thread) {
        for (int64_t at; (at = next.fetch_add(1)) < count;) f(at, thread);
    };
    std::vector<std::thread> others;
    for (int t = 1; t < std::min<int64_t>(threads, count); t++) others.emplace_back(work, t);
    work(0);
    for (auto& other : others) other.join();
}

// c[r][0..32) = sum over n of a[r][n] b[n][0..32)
template <int R> void product(const float* a, int64_t lda, const float* b, float* c, int64_t ldc, int64_t n) {
    v16 sum[R][2] = {};
    for (int64_t at = 0; at < n; at++, b += WIDE) {
        v16 left = load(b), right = load(b + 16);
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) {
            v16 x = splat(a[r * lda + at]);
            sum[r][0] += x * left, sum[r][1] += x * right;
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) store(c + r * ldc, sum[r][0]), store(c + r * ldc + 16, sum[r][1]);
}
void products(const float* a, int64_t lda, const float* b, float* c, int64_t ldc, int64_t n, int64_t rows) {
    for (; rows >= ROWS; rows -= ROWS, a += ROWS * lda, c += ROWS * ldc) product<ROWS>(a, lda, b, c, ldc, n);
    if constexpr (ROWS > 4)
        for (; rows >= 4; rows -= 4, a += 4 * lda, c += 4 * ldc) product<4>(a, lda, b, c, ldc, n);
    for (; rows; rows--, a += lda, c += ldc) product<1>(a, lda, b, c, ldc, n);
}

// ---------------------------------------------------------------- convolution

struct Shape {
    int64_t B, H, W, C, K;  // H and W of what comes out
    int32_t doubled, threads;

    int64_t tall() const { return (H + 1) / 2; }
    int64_t wide() const { return (W + 1) / 2; }
    int64_t tiles() const { return B * tall() * wide(); }
    bool empty(int e) const { return doubled && (e / 4 == 2 || e % 4 == 2); }
};

// Rows i and i + step exchange what is not yet in the right half of a square of 2 step x 2 step
template <int step, int... k> inline void exchange(v16& a, v16& b, std::integer_sequence<int, k...>) {
    v16 first = __builtin_shufflevector(a, b, (k & step ? 16 + k - step : k)...);
    b = __builtin_shufflevector(a, b, (k & step ? 16 + k : k + step)...);
    a = first;
}
template <int step> inline void exchanged(v16 r[16]) {
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++)
        if (!(i & step)) exchange<step>(r[i], r[i + step], std::make_integer_sequence<int, 16>());
}
// 16 rows of 16 floats become their columns.
inline void transpose(v16 r[16]) { exchanged<1>(r), exchanged<2>(r), exchanged<4>(r), exchanged<8>(r); }

// The 16 places lie a line of the cache more apart than they are long: at a multiple of 4096 bytes they would all want
// the same lines.
constexpr int64_t APART = 16;

// Kernels [K][C][3][3] of outputs first..first + 32 -> out [16][C][32]
void kernels(const Shape& s, const float* weight, int64_t first, float* out) {
    v16 g[144], row[12];
    for (int64_t half = 0; half < WIDE; half += 16)
        for (int64_t c = 0; c < s.C; c += 16) {
            const float* from = weight + ((first + half) * s.C + c) * 9;
            for (int piece = 0; piece < 9; piece++) {
                for (int k = 0; k < 16; k++) {
                    const float* row = from + k * s.C * 9 + 16 * piece;
                    g[16 * piece + k] = load(row);
                    __builtin_prefetch(row + 2 * 144);  // 16 rows are more than the processor foresees by itself
                }
                transpose(g + 16 * piece);
            }
            for (int inner = 0; inner < 16; inner++) {
                const v16* w = g + 9 * inner;
                for (int x = 0; x < 3; x++) {
                    v16 both = (w[x] + w[6 + x]) * 0.5f, middle = w[3 + x] * 0.5f;
                    row[x] = w[x], row[3 + x] = both + middle, row[6 + x] = both - middle, row[9 + x] = w[6 + x];
                }
                float* to = out + (c + inner) * WIDE + half;
                for (int y = 0; y < 4; y++) {
                    const v16* r = row + 3 * y;
                    v16 both = (r[0] + r[2]) * 0.5f, middle = r[1] * 0.5f;
                    v16 made[4] = {r[0], both + middle, both - middle, r[2]};
                    for (int x = 0; x < 4; x++) store(to + (4 * y + x) * (s.C * WIDE + APART), made[x]);
                }
            }
        }
}

// Pixels of tile p -> out [16][.][C], `stride` floats from place to place
void tile(const Shape& s, const float* x, const float* zeros, int64_t p, float* out, int64_t stride) {
    int64_t b = p / (s.tall() * s.wide()), rest = p % (s.tall() * s.wide());
    int64_t top = rest / s.wide() * 2 - 1, left = rest % s.wide() * 2 - 1;
    int64_t height = s.doubled ? s.H / 2 : s.H, width = s.doubled ? s.W / 2 : s.W;
    const float* from[16];
    for (int i = 0; i < 16; i++) {
        int64_t y = top + i / 4, z = left + i % 4;
        bool outside = y < 0 || z < 0 || y >= s.H || z >= s.W;
        if (s.doubled) y >>= 1, z >>= 1;
        from[i] = outside ? zeros : x + ((b * height + y) * width + z) * s.C;
    }
    for (int64_t c = 0; c < s.C; c += 16) {
        v16 d[16], r[16];
        for (int i = 0; i < 16; i++) d[i] = load(from[i] + c);
        for (int i = 0; i < 4; i++) {
            r[i] = d[i] - d[8 + i], r[4 + i] = d[4 + i] + d[8 + i];
            r[8 + i] = d[8 + i] - d[4 + i], r[12 + i] = d[4 + i] - d[12 + i];
        }
        for (int i = 0; i < 16; i += 4) {
            v16 made[4] = {r[i] - r[i + 2], r[i + 1] + r[i + 2], r[i + 2] - r[i + 1], r[i + 1] - r[i + 3]};
            for (int j = 0; j < 4; j++) store(out + (i + j) * stride + c, made[j]);
        }
    }
}

// The 16 places of tile p, [16][.][32] with `stride` floats from place to place -> 2x2 pixels of 32 outputs
void pixels(const Shape& s, const float* m, int64_t stride, int64_t p, int64_t first, const float* bias,
            const float* beside, float* y) {
    int64_t b = p / (s.tall() * s.wide()), rest = p % (s.tall() * s.wide());
    int64_t top = rest / s.wide() * 2, left = rest % s.wide() * 2;
    for (int64_t k = 0; k < WIDE; k += 16) {
        v16 r[8], plus = load(bias + b * s.K + first + k);
        for (int i = 0; i < 4; i++) {
            v16 a = load(m + i * stride + k), c = load(m + (4 + i) * stride + k);
            v16 e = load(m + (8 + i) * stride + k), g = load(m + (12 + i) * stride + k);
            r[i] = a + c + e, r[4 + i] = c - e - g;
        }
        for (int i = 0; i < 2 && top + i < s.H; i++) {
            const v16* t = r + 4 * i;
            v16 made[2] = {t[0] + t[1] + t[2] + plus, t[1] - t[2] - t[3] + plus};
            for (int j = 0; j < 2 && left + j < s.W; j++) {
                int64_t at = ((b * s.H + top + i) * s.W + left + j) * s.K + first + k;
                store(y + at, beside ? made[j] + load(beside + at) : made[j]);
            }
        }
    }
}

// ---------------------------------------------------------------- attention

constexpr int64_t QUERIES = 48, KEYS = 512, WIDEST = 64;

// e^x for x <= 0, to 2 units in the last place
inline v16 exponential(v16 x) {
    x = x < -87.0f ? splat(-87.0f) : x;
    v16 n = x * 1.44269504f + 12582912.0f;  // adding 1.5 * 2^23 rounds to an integer
    i16 power = reinterpret_cast<i16>(n) << 23;
    n -= 12582912.0f;
    v16 r = x - n * 0.693359375f + n * 2.12194440e-4f;
    v16 y = splat(1.9875691500e-4f);
    y = y * r + 1.3981999507e-3f, y = y * r + 8.3334519073e-3f, y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f, y = y * r + 5.0000001201e-1f, y = y * r * r + r + 1.0f;
    return reinterpret_cast<v16>(reinterpret_cast<i16>(y) + power);
}
template <class F> inline float folded(v16 x, F f) {
    float found = x[0];
    for (int i = 1; i < 16; i++) found = f(found, x[i]);
    return found;
}

// out[r][0..16 N) += sum over n of p[r][n] v[n][0..16 N)
template <int R, int N> void weighed(const float* p, int64_t ldp, const float* v, float* out, int64_t n) {
    v16 sum[R][N];
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
#pragma GCC unroll 16
        for (int i = 0; i < N; i++) sum[r][i] = load(out + r * 16 * N + 16 * i);
    for (int64_t at = 0; at < n; at++, v += 16 * N) {
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) {
            v16 x = splat(p[r * ldp + at]);
#pragma GCC unroll 16
            for (int i = 0; i < N; i++) sum[r][i] += x * load(v + 16 * i);
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
#pragma GCC unroll 16
        for (int i = 0; i < N; i++) store(out + r * 16 * N + 16 * i, sum[r][i]);
}
template <int N> void mix(const float* p, int64_t ldp, const float* v, float* out, int64_t n, int64_t rows) {
    constexpr int most = std::max(1, REGISTERS / N), R = most >= 12 ? 12 : most >= 8 ? 8 : most;
    for (; rows >= R; rows -= R, p += R * ldp, out += R * 16 * N) weighed<R, N>(p, ldp, v, out, n);
    for (; rows; rows--, p += ldp, out += 16 * N) weighed<1, N>(p, ldp, v, out, n);
}
using Mix = void (*)(const float*, int64_t, const float*, float*, int64_t, int64_t);
constexpr Mix MIXES[] = {mix<1>, mix<2>, mix<3>, mix<4>};

struct Heads {
    int64_t B, H, T, S, D;  // T queries, S keys of each of H heads, D their width
    int64_t q[3], k[3], v[3];  // floats from picture to picture, head to head, token to token
    float scale;
    int32_t threads;

    int64_t padded() const { return (D + 15) / 16 * 16; }
    int64_t panels() const { return (S + WIDE - 1) / WIDE; }
};

// Keys of a head -> [panel][D][32], values -> [S][padded D]
void gather(const Heads& s, const float* k, const float* v, float* keys, float* values) {
    for (int64_t panel = 0; panel < s.panels(); panel++)
        for (int64_t j = 0; j < WIDE; j++) {
            int64_t at = panel * WIDE + j;
            float* to = keys + panel * s.D * WIDE + j;
            for (int64_t d = 0; d < s.D; d++) to[d * WIDE] = at < s.S ? k[at * s.k[2] + d] : 0.0f;
        }
    for (int64_t at = 0; at < s.S; at++) {
        std::copy_n(v + at * s.v[2], s.D, values + at * s.padded());
        std::fill(values + at * s.padded() + s.D, values + (at + 1) * s.padded(), 0.0f);
    }
}

struct Scratch {
    float queries[QUERIES * WIDEST], scores[QUERIES * KEYS], sums[QUERIES * WIDEST], most[QUERIES], total[QUERIES];
};

// Scores of one query over `count` keys -> their weights, before they are divided by their sum
void soften(float* score, int64_t count, float& most, float& total, float* sums, int64_t width) {
    for (int64_t at = count; at % 16; at++) score[at] = -INFINITY;
    v16 top = splat(most);
    for (int64_t at = 0; at < count; at += 16) {
        v16 x = load(score + at);
        top = x > top ? x : top;
    }
    float now = folded(top, [](float a, float b) { return std::max(a, b); });
    if (now > most) {
        float share = std::exp(most - now);
        total *= share, most = now;
        for (int64_t d = 0; d < width; d += 16) store(sums + d, load(sums + d) * share);
    }
    v16 sum = {};
    for (int64_t at = 0; at < count; at += 16) {
        v16 y = exponential(load(score + at) - now);
        if (at + 16 > count)
            for (int64_t i = count - at; i < 16; i++) y[i] = 0.0f;
        store(score + at, y), sum += y;
    }
    total += folded(sum, [](float a, float b) { return a + b; });
}

void attended(const Heads& s, const float* q, const float* keys, const float* values, int64_t rows, Scratch& own,
              float* out) {
    int64_t width = s.padded();
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t d = 0; d < s.D; d++) own.queries[r * s.D + d] = q[r * s.q[2] + d] * s.scale;
        own.most[r] = -INFINITY, own.total[r] = 0.0f;
    }
    std::fill_n(own.sums, rows * width, 0.0f);
    for (int64_t begin = 0; begin < s.S; begin += KEYS) {
        int64_t count = std::min(KEYS, s.S - begin);
        for (int64_t at = 0; at < count; at += WIDE)
            products(own.queries, s.D, keys + (begin + at) * s.D, own.scores + at, KEYS, s.D, rows);
        for (int64_t r = 0; r < rows; r++)
            soften(own.scores + r * KEYS, count, own.most[r], own.total[r], own.sums + r * width, width);
        MIXES[width / 16 - 1](own.scores, KEYS, values + begin * width, own.sums, count, rows);
    }
    for (int64_t r = 0; r < rows; r++)
        for (int64_t d = 0; d < s.D; d++) out[r * s.H * s.D + d] = own.sums[r * width + d] / own.total[r];
}

}  // namespace

extern "C" {

// x [B][H][W][C] (or half as high and wide where doubled) -> y [B][H][W][K]; weight [K][C][3][3], bias [B][K],
// beside [B][H][W][K] is added or null. C is a multiple of 16, K of 32. Returns 0, or 1 where memory is lacking.
int32_t conjure_conv3x3(int64_t B, int64_t H, int64_t W, int64_t C, int64_t K, int32_t doubled, int32_t threads,
                        const float* x, const float* weight, const float* bias, const float* beside, float* y) {
    Shape s{B, H, W, C, K, doubled, threads};
    int64_t tiles = s.tiles(), most = std::clamp<int64_t>((6 << 20) / (64 * C), 96, 384);
    int64_t pieces = (tiles + most - 1) / most, piece = (tiles + pieces - 1) / pieces;
    piece = std::min(tiles, (piece + ROWS - 1) / ROWS * ROWS);
    bool once = pieces > 4;  // kernels of coarse levels are too many to be kept and few tiles meet them
    int64_t blocks = K / WIDE, kernel = 16 * (C * WIDE + APART);
    int64_t across = piece * C + APART, along = piece * WIDE + APART;
    Floats zeros = floats(C), inner = floats(16 * across), made = floats(threads * 16 * along);
    Floats ready = floats((once ? blocks : threads) * kernel);
    if (!zeros || !inner || !made || !ready) return 1;
    std::fill_n(zeros.get(), C, 0.0f);
    for (int64_t t = 0; t < threads; t++) std::fill_n(made.get() + t * 16 * along, 16 * along, 0.0f);
    if (once) parallel(blocks, threads, [&](int64_t at, int) {
        kernels(s, weight, at * WIDE, ready.get() + at * kernel);
    });
    for (int64_t begin = 0; begin < tiles; begin += piece) {
        int64_t count = std::min(piece, tiles - begin), groups = (count + 7) / 8;
        parallel(groups, threads, [&](int64_t group, int) {
            for (int64_t p = group * 8; p < std::min(count, group * 8 + 8); p++)
                tile(s, x, zeros.get(), begin + p, inner.get() + p * C, across);
        });
        parallel(blocks, threads, [&](int64_t at, int thread) {
            float* u = ready.get() + (once ? at : thread) * kernel;
            float* m = made.get() + thread * 16 * along;
            if (!once) kernels(s, weight, at * WIDE, u);
            for (int e = 0; e < 16; e++)
                if (!s.empty(e))
                    products(inner.get() + e * across, C, u + e * (C * WIDE + APART), m + e * along, WIDE, C, count);
            for (int64_t p = 0; p < count; p++)
                pixels(s, m + p * WIDE, along, begin + p, at * WIDE, bias, beside, y);
        });
    }
    return 0;
}

// q [B][H][T][D], k and v [B][H][S][D] with the given strides of the first three -> out [B][T][H][D]. D <= 64.
int32_t conjure_attention(int64_t B, int64_t H, int64_t T, int64_t S, int64_t D, const int64_t* strides, float scale,
                          int32_t threads, const float* q, const float* k, const float* v, float* out) {
    Heads s{B, H, T, S, D, {}, {}, {}, scale, threads};
    for (int i = 0; i < 3; i++) s.q[i] = strides[i], s.k[i] = strides[3 + i], s.v[i] = strides[6 + i];
    int64_t heads = B * H, blocks = (T + QUERIES - 1) / QUERIES;
    int64_t keys = s.panels() * s.D * WIDE, values = S * s.padded();
    Floats packed = floats(heads * (keys + values));
    std::unique_ptr<Scratch[]> own(new (std::nothrow) Scratch[threads]);
    if (!packed || !own) return 1;
    parallel(heads, threads, [&](int64_t at, int) {
        float* to = packed.get() + at * (keys + values);
        int64_t b = at / H, h = at % H;
        gather(s, k + b * s.k[0] + h * s.k[1], v + b * s.v[0] + h * s.v[1], to, to + keys);
    });
    parallel(heads * blocks, threads, [&](int64_t job, int thread) {
        int64_t at = job / blocks, first = job % blocks * QUERIES, b = at / H, h = at % H;
        const float* from = packed.get() + at * (keys + values);
        attended(s, q + b * s.q[0] + h * s.q[1] + first * s.q[2], from, from + keys, std::min(QUERIES, T - first),
                 own[thread], out + ((b * T + first) * H + h) * D);
    });
    return 0;
}

}  // extern "C"
