// Products of a few rows of activations with a matrix: vectors of 16 numbers, and the kernels for each kind of weights.
// How matrices lie is said in step.cpp.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum Kind : int32_t { FP32, BF16, INT8, INT4 };
enum NormKind : int32_t { NONE, RMS, LAYER };
enum Activation : int32_t { SILU, GELU, GELU_TANH, QUICK_GELU, RELU, RELU2 };

struct Matrix {
    const uint8_t* data;
    const uint16_t* scale;
    const float* bias;  // padded to 16, or null
    int32_t kind, rows, cols, unused;
};
namespace {

// ---------------------------------------------------------------- vectors of 16

constexpr int LANES = 16;
typedef float vf __attribute__((vector_size(64)));
typedef int32_t vi __attribute__((vector_size(64)));
typedef uint32_t vu __attribute__((vector_size(64)));
typedef int8_t v16b __attribute__((vector_size(16)));

template <class V> inline V load(const void* at) {
    V v;
    memcpy(&v, at, sizeof v);
    return v;
}
template <class V> inline void store(void* at, V v) { memcpy(at, &v, sizeof v); }
inline int padded(int n, int to) { return (n + to - 1) / to * to; }

inline vf halves(const void* at) {
#if defined(__AVX512F__)
    return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)at));
#elif defined(__F16C__)
    vf v;
    for (int i = 0; i < 2; i++) {
        __m256 part = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)at + i));
        memcpy((char*)&v + 32 * i, &part, 32);
    }
    return v;
#else
    _Float16 h[LANES];
    memcpy(h, at, sizeof h);
    vf v;
    for (int i = 0; i < LANES; i++) v[i] = (float)h[i];
    return v;
#endif
}
inline void put_half(void* at, float value) {
#if defined(__F16C__)
    uint16_t h = (uint16_t)_cvtss_sh(value, 0);
#else
    _Float16 h = (_Float16)value;
#endif
    memcpy(at, &h, 2);
}

// acc[lane] += sum over 4 of unsigned w[lane][i] * signed a[i], the four bytes of a
inline vi dot4(vi acc, vu w, int32_t a) {
#if defined(__AVX512VNNI__)
    return (vi)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)w, _mm512_set1_epi32(a));
#elif defined(__AVXVNNI__) || defined(__AVX2__)
    __m256i out[2], u[2];
    memcpy(out, &acc, 64);
    memcpy(u, &w, 64);
    for (int i = 0; i < 2; i++) {
#if defined(__AVXVNNI__)
        out[i] = _mm256_dpbusd_avx_epi32(out[i], u[i], _mm256_set1_epi32(a));
#else
        __m256i even = _mm256_set1_epi32((a << 24 >> 24 & 0xffff) | (a << 8 >> 24) * 65536);
        __m256i odd = _mm256_set1_epi32((a << 16 >> 24 & 0xffff) | (a >> 24) * 65536);
        out[i] = _mm256_add_epi32(out[i], _mm256_madd_epi16(_mm256_and_si256(u[i], _mm256_set1_epi32(0xff00ff)), even));
        out[i] = _mm256_add_epi32(out[i], _mm256_madd_epi16(_mm256_srli_epi16(u[i], 8), odd));
#endif
    }
    memcpy(&acc, out, 64);
    return acc;
#else
    acc += (vi)(w & 255) * (a << 24 >> 24) + (vi)(w >> 8 & 255) * (a << 16 >> 24);
    return acc + (vi)(w >> 16 & 255) * (a << 8 >> 24) + (vi)(w >> 24) * (a >> 24);
#endif
}

inline vf pick(vi condition, vf yes, vf no) { return (vf)((condition & (vi)yes) | (~condition & (vi)no)); }

inline vf exponential(vf x) {  // within 2 units in the last place; 0 (nearly) below -87
    x = pick(x < -87.0f, vf{} - 87.0f, pick(x > 88.0f, vf{} + 88.0f, x));
    vf magic = vf{} + 12582912.0f;
    vf n = x * 1.44269504f + magic;
    vi power = ((vi)n - (vi)magic) << 23;
    n -= magic;
    vf r = x - n * 0.693145752f - n * 1.42860677e-6f;
    vf p = r * (r * (r * 1.3981999e-3f + 8.3334519e-3f) + 4.1665795e-2f) + 1.6666665e-1f;
    p = (r * p + 0.5f) * r * r + r + 1.0f;
    return (vf)((vi)p + power);
}
inline vf sigmoid(vf x) { return 1.0f / (1.0f + exponential(-x)); }
inline vf capped(vf x, float cap) { return cap * (2.0f * sigmoid(x * (2.0f / cap)) - 1.0f); }

inline vf activated(vf x, int kind) {
    switch (kind) {
        case SILU: return x * sigmoid(x);
        case GELU_TANH: return x * sigmoid(1.5957691216f * (x + 0.044715f * x * x * x));
        case QUICK_GELU: return x * sigmoid(1.702f * x);
        case GELU: {  // erf after Abramowitz and Stegun 7.1.26, absolute error 1.5e-7
            vf z = (vf)((vi)x & 0x7fffffff) * 0.70710678f, t = 1.0f / (1.0f + 0.3275911f * z);
            vf tail = 1.421413741f + t * (-1.453152027f + t * 1.061405429f);
            vf half = 0.5f * t * (0.254829592f + t * (-0.284496736f + t * tail)) * exponential(-z * z);
            return x * pick(x < 0.0f, half, 1.0f - half);
        }
        default: x = pick(x > 0.0f, x, vf{}); return kind == RELU2 ? x * x : x;
    }
}

// ---------------------------------------------------------------- products

// R rows of activations, as a product with a matrix of this kind reads them
struct Rows {
    std::vector<float> x, scale;
    std::vector<int8_t> q;
    std::vector<int32_t> sum;  // of a group of q, times -8
    int xs = 0, qs = 0, gs = 0;

    void size(int rows, int cols) {
        int wide = padded(cols, 32);
        xs = wide + 16, qs = wide + 64, gs = wide / 32;  // the odd lengths keep rows apart in the cache
        x.assign((size_t)rows * xs, 0.0f);
        q.assign((size_t)rows * qs, 0);
        scale.assign((size_t)rows * gs, 0.0f);
        sum.assign((size_t)rows * gs, 0);
    }
    void quantise(int row, int groups) {
        for (int g = 0; g < groups; g++) {
            const float* from = x.data() + (size_t)row * xs + 32 * g;
            vf a = load<vf>(from), b = load<vf>(from + 16);
            vi ma = (vi)a & 0x7fffffff, mb = (vi)b & 0x7fffffff;
            vi larger = (ma > mb) ? ma : mb;
            int32_t bits = 0, total = 0;
            for (int i = 0; i < LANES; i++) bits = larger[i] > bits ? larger[i] : bits;
            float most;
            memcpy(&most, &bits, 4);
            float inverse = most > 0 ? 127.0f / most : 0.0f;
            vi qa = (vi)(a * inverse + 12582912.0f) - 0x4b400000, qb = (vi)(b * inverse + 12582912.0f) - 0x4b400000;
            vi both = qa + qb;
            for (int i = 0; i < LANES; i++) total += both[i];
            int8_t* to = q.data() + (size_t)row * qs + 32 * g;
            store(to, __builtin_convertvector(qa, v16b));
            store(to + 16, __builtin_convertvector(qb, v16b));
            scale[(size_t)row * gs + g] = most / 127.0f;
            sum[(size_t)row * gs + g] = -8 * total;
        }
    }
};

struct ReadF32 {
    static constexpr int steps = 1;
    static void get(const uint8_t* at, vf* w) { w[0] = load<vf>(at); }
};
struct ReadF16 {
    static constexpr int steps = 1;
    static void get(const uint8_t* at, vf* w) { w[0] = halves(at); }
};
struct ReadBF16 {
    static constexpr int steps = 2;
    static void get(const uint8_t* at, vf* w) {
        vu pair = load<vu>(at);
        w[0] = (vf)(pair << 16), w[1] = (vf)(pair & 0xffff0000u);
    }
};

constexpr int AHEAD = 2048;  // bytes that are asked for before they are read

// y[r][16 n + lane] (+)= sum over k of w[n][k][lane] * x[r][k]; `stride` bytes lead to the next k, `apart` to n + 1
template <class Read, int R, int N>
inline void dots(
    const uint8_t* w, size_t stride, size_t apart, int steps, const float* x, int xs, float* y, int ys, bool more) {
    // A sum waits for the one before it: a single row needs many at a time, and one for each half of a pair
    constexpr int S = Read::steps, P = R == 1 && N <= 2 ? S : 1, U = R * N >= 4 ? 1 : 4 / (R * N);
    vf acc[U][N][R][P] = {};
    int k = 0;
    for (; k + U <= steps; k += U)
        for (int u = 0; u < U; u++)
            for (int n = 0; n < N; n++) {
                vf v[S];
                const uint8_t* at = w + n * apart + (k + u) * stride;
                Read::get(at, v);
                if (R == 1 || N == 2) __builtin_prefetch(at + AHEAD);
                for (int s = 0; s < S; s++)
                    for (int r = 0; r < R; r++) acc[u][n][r][s % P] += v[s] * x[r * xs + (k + u) * S + s];
            }
    for (; k < steps; k++)
        for (int n = 0; n < N; n++) {
            vf v[S];
            Read::get(w + n * apart + k * stride, v);
            for (int s = 0; s < S; s++)
                for (int r = 0; r < R; r++) acc[0][n][r][s % P] += v[s] * x[r * xs + k * S + s];
        }
    for (int r = 0; r < R; r++)
        for (int n = 0; n < N; n++) {
            for (int i = 1; i < U * P; i++) acc[0][n][r][0] += acc[i / P][n][r][i % P];
            float* at = y + r * ys + LANES * n;
            store(at, more ? load<vf>(at) + acc[0][n][r][0] : acc[0][n][r][0]);
        }
}

template <bool FOUR, int R>
inline void grouped(const uint8_t* w, const uint16_t* scale, int groups, const Rows& a, int row, float* y, int ys) {
    vf acc[R] = {};
    const int8_t* q = a.q.data() + (size_t)row * a.qs;
    const float* sa = a.scale.data() + (size_t)row * a.gs;
    const int32_t* sum = a.sum.data() + (size_t)row * a.gs;
    for (int g = 0; g < groups; g++) {
        vi d[R];
        for (int r = 0; r < R; r++) d[r] = (vi{} + sum[r * a.gs + g]) << (FOUR ? 0 : 4);
        const uint8_t* at = w + (size_t)g * (FOUR ? 256 : 512);
        auto take = [&](vu u, int j) {
            for (int r = 0; r < R; r++) d[r] = dot4(d[r], u, load<int32_t>(q + r * a.qs + 32 * g + 4 * j));
        };
        for (int j = 0; j < (FOUR ? 4 : 8); j++) {
            vu u = load<vu>(at + 64 * j);
            __builtin_prefetch(at + 64 * j + 2048);
            if constexpr (FOUR) {
                take(u & 0x0f0f0f0fu, j);
                take(u >> 4 & 0x0f0f0f0fu, j + 4);
            } else take(u, j);
        }
        vf sw = halves(scale + LANES * g);
        for (int r = 0; r < R; r++) acc[r] += __builtin_convertvector(d[r], vf) * (sw * sa[r * a.gs + g]);
    }
    for (int r = 0; r < R; r++) store(y + r * ys, acc[r]);
}

template <class F> inline void by_eights(int rows, F f) {
    int row = 0;
    for (; rows - row >= 8; row += 8) f.template operator()<8>(row);
    if (rows - row >= 4) f.template operator()<4>(row), row += 4;
    if (rows - row >= 2) f.template operator()<2>(row), row += 2;
    if (rows - row >= 1) f.template operator()<1>(row);
}

constexpr int BLOCK = 3;     // tiles that are computed together for many rows
constexpr int DEPTH = 512;   // inputs after which many rows go round again, so that the weights stay in the cache

template <class Read, int N>
void dense(const Matrix& m, int tile, const Rows& a, int rows, float* y, int ys, int size) {
    constexpr int S = Read::steps;
    int wide = padded(m.cols, 32), depth = rows > 8 ? DEPTH : wide;
    size_t stride = (size_t)LANES * size * S, apart = (size_t)wide / S * stride;
    for (int k = 0; k < wide; k += depth) {
        int steps = (depth < wide - k ? depth : wide - k) / S;
        const uint8_t* w = m.data + tile * apart + k / S * stride;
        by_eights(rows, [&]<int R>(int row) {
            const float* x = a.x.data() + (size_t)row * a.xs + k;
            dots<Read, R, N>(w, stride, apart, steps, x, a.xs, y + row * ys, ys, k > 0);
        });
    }
}

// y[row][16 n + lane] of `count` <= BLOCK tiles from `tile` on
void product(const Matrix& m, int tile, int count, const Rows& a, int rows, float* y, int ys) {
    int groups = padded(m.cols, 32) / 32;
    if (m.kind == INT8 || m.kind == INT4) {
        for (int n = 0; n < count; n++) {
            size_t at = (size_t)(tile + n) * groups;
            by_eights(rows, [&]<int R>(int row) {
                float* to = y + row * ys + LANES * n;
                const uint16_t* scale = m.scale + at * LANES;
                if (m.kind == INT8) grouped<false, R>(m.data + at * 512, scale, groups, a, row, to, ys);
                else grouped<true, R>(m.data + at * 256, scale, groups, a, row, to, ys);
            });
        }
    } else if (count == BLOCK && rows > 8) {
        if (m.kind == FP32) dense<ReadF32, BLOCK>(m, tile, a, rows, y, ys, 4);
        else dense<ReadBF16, BLOCK>(m, tile, a, rows, y, ys, 2);
    } else {
        int n = 0;
        for (; (rows == 1 || rows % 4 == 0) && n + 2 <= count; n += 2)  // sums in the same order as one by one
            if (m.kind == FP32) dense<ReadF32, 2>(m, tile + n, a, rows, y + LANES * n, ys, 4);
            else dense<ReadBF16, 2>(m, tile + n, a, rows, y + LANES * n, ys, 2);
        for (; n < count; n++)
            if (m.kind == FP32) dense<ReadF32, 1>(m, tile + n, a, rows, y + LANES * n, ys, 4);
            else dense<ReadBF16, 1>(m, tile + n, a, rows, y + LANES * n, ys, 2);
    }
}

}  // namespace
