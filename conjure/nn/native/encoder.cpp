// A layer of an encoder over many rows on a CPU, but for its attention: norms, products, what lies between them.
//
// Plain C interface (mirrored in encoder.py), no dependency but the C++20 library. A thread takes some rows through all
// products of a layer, so that what it computes stays in its cache. Matrices lie in panels of 32 outputs:
//   fp32  [panel][input][32]
//   int8  [panel][input / 4][32][4] bytes, value + 128, with one scale an output
// Before a product with int8 each row of activations is rounded to int8 with one scale, so that products are sums of
// integers (as fbgemm and CTranslate2 do).
//
// Legend: R rows, D width, F hidden width, Q outputs of queries, keys and values together.

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <thread>

#include "products.h"

struct Dense {
    const uint8_t* data;
    const float *scale, *bias;  // padded to 32; no scale: fp32
    int32_t rows, cols;         // cols: padded to 4
};
struct Norm {
    const float *weight, *bias;
    int32_t kind;
    float eps;
};
struct Layer {
    Norm attention_in, mlp_in;
    Dense qkv, out, up, down;
    int32_t activation, unused;
};
struct Call {
    const Layer *after, *before;  // the layer that is ended, and the one that is begun; either may be null
    float* x;                     // [R, D], the residual stream
    const float* attended;        // [R, inputs of `out`]
    float* qkv;                   // [R, Q]
    int64_t rows;
    int32_t dim, threads;
};

namespace {

constexpr int PANEL = 2 * LANES;
#if defined(__AVX512F__)
constexpr int MANY = 12;  // rows that are multiplied together: 24 sums of 16 numbers in 32 registers
#else
constexpr int MANY = 3;
#endif
constexpr int TOGETHER = 120;  // rows that a thread takes through a layer: matrices come from far once for them

inline vf splat(float x) { return x - vf{}; }

// Rows as a product reads them
struct Input {
    std::vector<float> x, scale;
    std::vector<int8_t> q;
    std::vector<int32_t> sum;  // of q, times 128
    int stride = 0;

    void size(int rows, int cols) {
        stride = padded(cols, 64) + 64;  // rows of a power of two would want the same lines of the cache
        if (x.size() < (size_t)rows * stride) x.resize((size_t)rows * stride), q.resize((size_t)rows * stride);
        if ((int)scale.size() < rows) scale.resize(rows), sum.resize(rows);
    }
    void quantise(int row, int cols, int wide) {
        const float* from = x.data() + (size_t)row * stride;
        float most = 0;
        vi top = {};
        int i = 0;
        for (; i + LANES <= cols; i += LANES) {
            vi bits = (vi)load<vf>(from + i) & 0x7fffffff;  // of numbers without a sign, the order of their bits
            top = bits > top ? bits : top;
        }
        int32_t bits = 0;
        for (int lane = 0; lane < LANES; lane++) bits = std::max(bits, top[lane]);
        memcpy(&most, &bits, 4);
        for (; i < cols; i++) most = std::max(most, std::fabs(from[i]));
        float inverse = most > 0 ? 127.0f / most : 0.0f;
        int8_t* to = q.data() + (size_t)row * stride;
        vi total = {};
        int32_t rest = 0;
        for (i = 0; i + LANES <= cols; i += LANES) {
            vi whole = (vi)(load<vf>(from + i) * inverse + 12582912.0f) - 0x4b400000;
            total += whole;
            store(to + i, __builtin_convertvector(whole, v16b));
        }
        for (; i < cols; i++) to[i] = (int8_t)std::lrintf(from[i] * inverse), rest += to[i];
        for (; i < wide; i++) to[i] = 0;
        for (int lane = 0; lane < LANES; lane++) rest += total[lane];
        scale[row] = most / 127.0f, sum[row] = 128 * rest;
    }
};

void normalise(const Norm& n, const float* x, float* y, int dim) {
    float mean = 0, square = 0;
    if (n.kind == LAYER) {
#pragma omp simd reduction(+ : mean)
        for (int i = 0; i < dim; i++) mean += x[i];
        mean /= dim;
    }
#pragma omp simd reduction(+ : square)
    for (int i = 0; i < dim; i++) square += (x[i] - mean) * (x[i] - mean);
    float inverse = 1.0f / std::sqrt(square / dim + n.eps);
    for (int i = 0; i < dim; i++) {
        float v = (x[i] - mean) * inverse;
        if (n.weight) v *= n.weight[i];
        y[i] = n.bias ? v + n.bias[i] : v;
    }
}

// each(row, column, 16 values) of R rows and one panel
template <int R, class E> inline void whole_numbers(const Dense& d, int panel, const Input& a, int row, const E& each) {
    vi sums[R][2] = {};
    const uint8_t* w = d.data + (size_t)panel * d.cols * PANEL;
    const int8_t* q = a.q.data() + (size_t)row * a.stride;
    for (int k = 0; k < d.cols; k += 4, w += 4 * PANEL) {
        vu left = load<vu>(w), right = load<vu>(w + 64);
        if (R == MANY) __builtin_prefetch(w + AHEAD), __builtin_prefetch(w + AHEAD + 64);
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) {
            int32_t four = load<int32_t>(q + (size_t)r * a.stride + k);
            sums[r][0] = dot4(sums[r][0], left, four), sums[r][1] = dot4(sums[r][1], right, four);
        }
    }
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
        int column = PANEL * panel + LANES * half;
        if (column >= d.rows) continue;
        vf scale = load<vf>(d.scale + column), bias = load<vf>(d.bias + column);
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) {
            vf y = __builtin_convertvector(sums[r][half] - a.sum[row + r], vf);
            each(row + r, column, y * (scale * a.scale[row + r]) + bias);
        }
    }
}
template <int R, class E> inline void floats(const Dense& d, int panel, const Input& a, int row, const E& each) {
    vf sums[R][2] = {};
    const float* w = (const float*)d.data + (size_t)panel * d.cols * PANEL;
    const float* x = a.x.data() + (size_t)row * a.stride;
    for (int k = 0; k < d.cols; k++, w += PANEL) {
        vf left = load<vf>(w), right = load<vf>(w + LANES);
        if (R == MANY) __builtin_prefetch(w + AHEAD / 4), __builtin_prefetch(w + AHEAD / 4 + LANES);
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) {
            vf one = splat(x[(size_t)r * a.stride + k]);
            sums[r][0] += one * left, sums[r][1] += one * right;
        }
    }
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
        int column = PANEL * panel + LANES * half;
        if (column >= d.rows) continue;
        vf bias = load<vf>(d.bias + column);
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) each(row + r, column, sums[r][half] + bias);
    }
}

// each(row, column, 16 values) of the product of `rows` rows, which are rounded first where the matrix wants that
template <class E> void multiply(const Dense& d, Input& a, int rows, int cols, const E& each) {
    if (d.scale)
        for (int r = 0; r < rows; r++) a.quantise(r, cols, d.cols);
    else if (cols < d.cols)
        for (int r = 0; r < rows; r++) memset(a.x.data() + (size_t)r * a.stride + cols, 0, 4 * (d.cols - cols));
    auto part = [&]<int R>(int panel, int row) {
        if (d.scale) whole_numbers<R>(d, panel, a, row, each);
        else floats<R>(d, panel, a, row, each);
    };
    for (int panel = 0; panel * PANEL < d.rows; panel++) {
        int row = 0;
        for (; rows - row >= MANY; row += MANY) part.template operator()<MANY>(panel, row);
        if constexpr (MANY > 4)
            for (; rows - row >= 4; row += 4) part.template operator()<4>(panel, row);
        for (; row < rows; row++) part.template operator()<1>(panel, row);
    }
}

void finish(const Call& c, const Layer& l, int64_t first, int rows, Input& own, Input& hidden) {
    float* x = c.x + first * c.dim;
    int wide = l.out.cols, F = l.up.rows;
    own.size(rows, std::max(wide, l.up.cols));
    for (int r = 0; r < rows; r++)
        memcpy(own.x.data() + (size_t)r * own.stride, c.attended + (first + r) * wide, sizeof(float) * wide);
    auto add = [&](int r, int column, vf y) {
        float* at = x + (size_t)r * c.dim + column;
        store(at, load<vf>(at) + y);
    };
    multiply(l.out, own, rows, wide, add);
    for (int r = 0; r < rows; r++)
        normalise(l.mlp_in, x + (size_t)r * c.dim, own.x.data() + (size_t)r * own.stride, c.dim);
    hidden.size(rows, F);
    multiply(l.up, own, rows, c.dim, [&](int r, int column, vf y) {
        store(hidden.x.data() + (size_t)r * hidden.stride + column, activated(y, l.activation));
    });
    multiply(l.down, hidden, rows, F, add);
}

void begin(const Call& c, const Layer& l, int64_t first, int rows, Input& own) {
    own.size(rows, c.dim);
    for (int r = 0; r < rows; r++)
        normalise(l.attention_in, c.x + (first + r) * c.dim, own.x.data() + (size_t)r * own.stride, c.dim);
    multiply(l.qkv, own, rows, c.dim, [&](int r, int column, vf y) {
        store(c.qkv + (first + r) * l.qkv.rows + column, y);
    });
}

}  // namespace

extern "C" {

size_t conjure_encoder_sizes(int which) {
    const size_t sizes[] = {sizeof(Dense), sizeof(Norm), sizeof(Layer), sizeof(Call)};
    return sizes[which];
}

// What follows attention in one layer, and what comes before it in the next
void conjure_encode(const Call* call) {
    const Call& c = *call;
    std::atomic<int64_t> next{0};
    auto work = [&] {
        Input own, hidden;
        for (int64_t at; (at = next.fetch_add(TOGETHER)) < c.rows;) {
            int rows = (int)std::min<int64_t>(TOGETHER, c.rows - at);
            if (c.after) finish(c, *c.after, at, rows, own, hidden);
            if (c.before) begin(c, *c.before, at, rows, own);
        }
    };
    std::vector<std::thread> others;
    for (int t = 1; t < c.threads && (int64_t)t * TOGETHER < c.rows; t++) others.emplace_back(work);
    work();
    for (auto& other : others) other.join();
}
}
