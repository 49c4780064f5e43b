// One pass of a decoder transformer over a few rows: a step of decoding, or a piece of a prompt.
//
// Plain C interface (the structs at the top are mirrored in structs.py), no dependency but the C++20 library. Matrices
// lie in tiles of 16 outputs, so that one vector register holds 16 outputs and every input is broadcast to all of them:
//   fp32  [tile][input][16]                bf16  [tile][input / 2][16] pairs, the even input in the low half
//   int8  [tile][group][8][16][4] bytes, value + 128             scale fp16 [tile][group][16]; groups of 32 inputs
//   int4  [tile][group][4][16][4] bytes, value + 8, inputs 0-15 of the group in the low nibbles, 16-31 in the high
// Inputs are padded to 32 and outputs to 16. Before a product with int8 or int4 the activations are rounded to int8
// with one scale per group of 32, as llama.cpp does, so that products are sums of integers. Keys lie as
// [slot / 16][C][16], values as [slot][C padded to 16]: both products of attention are the product with an fp32 (or
// fp16) matrix. What a decoder reads across (the memory) lies in the same way.
//
// Legend: B rows of the batch, T new tokens of each, R = B T, D width, H query heads, K key heads, C head width, M slots
// of the memory.

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <thread>
#include <vector>
#include <unistd.h>

#include "packing.h"
#include "products.h"

struct Norm {
    const float *weight, *bias;
    int32_t kind;
    float eps;
};
struct Layer {
    Matrix qkv, out, gate, up, down;  // a plain feed-forward layer has no gate (no data)
    Matrix cross_q, cross_out;        // of attention to the memory; without data there is none
    Norm attention_in, attention_out, attention_post, mlp_in, mlp_out, mlp_post, q, k, cross_in, cross_post;
    const float* sinks;   // a logit per head that takes part in the softmax, or null
    const float* slopes;  // of ALiBi, per head, or null
    float scale;
    int32_t window, rope, unused;  // rope: which tables, -1 is none
};
struct Model {
    Matrix embed, head;
    Norm embed_norm, final_norm;
    const float* place;  // learned positions [max_length, D], or null
    const Layer* layers;
    int32_t count, dim, heads, key_heads, width, hidden, activation, parallel, interleaved, half_cache;
    float softcap, logit_softcap, embedding_scale;
    int32_t unused;
};
struct Call {
    const int64_t* ids;      // [B, T]
    const float* more;       // [B, T, D] that is added to the embedding, or null
    const int64_t* padding;  // [B]
    const int64_t* lengths;  // [B]: slots in use before these tokens
    const int64_t* places;   // [B]: which row of the memory is meant
    uint8_t *keys, *values;  // [layer, held, K, capacity, ...]
    const float *cos[2], *sin[2];  // [capacity, rotated / 2]
    float* logits;  // [B, 1 or T, V]; null: none are needed
    const uint8_t *memory_keys, *memory_values;  // [layer, memory_held, H, memory_slots, ...]
    const int64_t *memory_places, *memory_lengths;  // [B]: which row of the memory each reads, and how much of it
    int32_t batch, tokens, held, capacity, rotated[2], last_only, threads, memory_held, memory_slots;
};

namespace {

// ---------------------------------------------------------------- threads

inline void pause() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}
inline int64_t microseconds() {
    auto now = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration_cast<std::chrono::microseconds>(now).count();
}

// Threads that wait for work: spinning for a moment, since the next step mostly comes at once, then asleep.
struct Pool {
    alignas(64) std::atomic<uint64_t> job{0};  // number * 2^16 + how many threads take part
    alignas(64) std::atomic<uint32_t> arrived{0};
    alignas(64) std::atomic<uint32_t> phase{0};
    alignas(64) std::atomic<int> next{0};  // of the pieces of work that threads take in turn
    int count = 1, started = 1;
    void (*work)(int) = nullptr;

    void run(int threads, void (*f)(int)) {
        work = f;
        count = threads;
        next = 0;
        for (; started < threads; started++)
            std::thread([this, id = started, seen = job.load()] { wait(id, seen); }).detach();
        if (threads > 1) {
            job.store(((job.load() >> 16) + 1) << 16 | (uint64_t)threads, std::memory_order_seq_cst);
            job.notify_all();
        }
        f(0);
        barrier();
    }
    void wait(int id, uint64_t seen) {
        for (;;) {
            int64_t until = microseconds() + 50;
            uint64_t now;
            while ((now = job.load(std::memory_order_acquire)) == seen) {
                for (int i = 0; i < 8; i++) pause();
                if (microseconds() > until) job.wait(seen);
            }
            seen = now;
            if (id >= (int)(now & 0xffff)) continue;
            work(id);
            barrier();
        }
    }
    void barrier() {
        if (count == 1) {
            next.store(0, std::memory_order_relaxed);
            return;
        }
        uint32_t now = phase.load(std::memory_order_relaxed);
        if ((int)arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == count) {
            arrived.store(0, std::memory_order_relaxed);
            next.store(0, std::memory_order_relaxed);
            phase.store(now + 1, std::memory_order_seq_cst);
            phase.notify_all();
            return;
        }
        for (int spins = 0; phase.load(std::memory_order_acquire) == now; spins++) {
            if (spins < 1000) pause();
            else phase.wait(now);  // somebody is not running at all; yielding would give the turn to other programs
        }
    }
};

Pool* pool = nullptr;
std::mutex one_at_a_time;

// ---------------------------------------------------------------- one pass

struct Own {  // what each thread has for itself
    Rows rows, mlp;
    std::vector<float> first, second, scores, queries;
};
struct Pass {
    const Model* m;
    const Call* c;
    int R, wide, qkv_wide, hidden_wide, heads_wide;  // wide: lengths of rows, padded to 16
    std::vector<float> x, update, qkv, attended, hidden;
    Rows shared, shared_mlp;
    std::vector<Own> own;
} pass;

// Pieces of `count` things, taken by whoever is free: f(first, end)
template <class F> void share(int count, int unit, F f) {
    int threads = pool->count, piece = padded(count / (threads * 6) + 1, unit);
    for (int at; (at = pool->next.fetch_add(piece, std::memory_order_relaxed)) < count;)
        f(at, at + piece < count ? at + piece : count);
}

// each(row, column, 16 values) for all outputs; with a second matrix each(row, column, values, its values)
template <class E> void multiply(int thread, const Matrix& m, const Matrix* second, const Rows& a, int rows, E each) {
    Own& own = pass.own[thread];
    constexpr int WIDE = BLOCK * LANES;
    share(padded(m.rows, LANES) / LANES, rows > 8 && m.kind < INT8 ? BLOCK : 1, [&](int from, int end) {
        for (int tile = from; tile < end; tile += BLOCK) {
            int count = end - tile < BLOCK ? end - tile : BLOCK;
            product(m, tile, count, a, rows, own.first.data(), WIDE);
            if (second) product(*second, tile, count, a, rows, own.second.data(), WIDE);
            for (int r = 0; r < rows; r++)
                for (int n = 0; n < count; n++) {
                    int column = (tile + n) * LANES;
                    vf y = load<vf>(own.first.data() + r * WIDE + LANES * n), z = vf{};
                    if (m.bias) y += load<vf>(m.bias + column);
                    if (second) z = load<vf>(own.second.data() + r * WIDE + LANES * n);
                    if (second && second->bias) z += load<vf>(second->bias + column);
                    each(r, column, y, z);
                }
        }
    });
    pool->barrier();
}

void normalise(const Norm& n, const float* x, float* y, int dim) {
    if (n.kind == NONE && !n.weight && x == y) return;
    float mean = 0, square = 0;
    if (n.kind == LAYER) {
#pragma omp simd reduction(+ : mean)
        for (int i = 0; i < dim; i++) mean += x[i];
        mean /= dim;
    }
#pragma omp simd reduction(+ : square)
    for (int i = 0; i < dim; i++) square += (x[i] - mean) * (x[i] - mean);
    float inverse = n.kind == NONE ? 1.0f : 1.0f / std::sqrt(square / dim + n.eps);
    for (int i = 0; i < dim; i++) y[i] = (x[i] - mean) * inverse;
    if (n.weight)
        for (int i = 0; i < dim; i++) y[i] *= n.weight[i];
    if (n.bias)
        for (int i = 0; i < dim; i++) y[i] += n.bias[i];
}


// The rows that a product reads: normalised, and rounded if it wants that. Every thread makes a single row for itself.
const Rows& prepare(
    int thread, Rows& shared, const Norm& norm, const std::vector<float>& from, int stride, const Matrix& reader) {
    bool alone = pass.R == 1;
    Rows& to = alone ? (&shared == &pass.shared ? pass.own[thread].rows : pass.own[thread].mlp) : shared;
    for (int r = alone ? 0 : thread; r < pass.R; r += alone ? 1 : pool->count) {
        float* x = to.x.data() + (size_t)r * to.xs;
        normalise(norm, from.data() + (size_t)r * stride, x, reader.cols);
        memset(x + reader.cols, 0, sizeof(float) * (padded(reader.cols, 32) - reader.cols));
        if (reader.kind >= INT8) to.quantise(r, padded(reader.cols, 32) / 32);
    }
    if (!alone) pool->barrier();
    return to;
}

// What a layer computed goes into the residual stream, normalised before or the sum after, where the placement says so
void settle(int thread, const Norm& out, const Norm& post) {
    for (int r = thread; r < pass.R; r += pool->count) {
        float *x = pass.x.data() + (size_t)r * pass.wide, *u = pass.update.data() + (size_t)r * pass.wide;
        normalise(out, u, u, pass.m->dim);
        for (int i = 0; i < pass.m->dim; i++) x[i] += u[i];
        normalise(post, x, x, pass.m->dim);
    }
    pool->barrier();
}

void add(int thread, const Matrix& matrix, const Rows& rows, const Norm& out, const Norm& post) {
    bool later = out.kind != NONE || post.kind != NONE;
    multiply(thread, matrix, nullptr, rows, pass.R, [&](int r, int column, vf y, vf) {
        float* at = (later ? pass.update : pass.x).data() + (size_t)r * pass.wide + column;
        store(at, later ? y : load<vf>(at) + y);
    });
    if (later) settle(thread, out, post);
}

void turn(float* v, const Norm& norm, const float* cos, const float* sin, int rotated) {
    normalise(norm, v, v, pass.m->width);
    int half = rotated / 2, apart = pass.m->interleaved ? 1 : half, step = pass.m->interleaved ? 2 : 1;
    for (int i = 0; i < half; i++) {
        float a = v[i * step], b = v[i * step + apart];
        v[i * step] = a * cos[i] - b * sin[i];
        v[i * step + apart] = b * cos[i] + a * sin[i];
    }
}

size_t keys_at(int layer, int b, int head) {  // the number of slots before those of this head
    const Call& c = *pass.c;
    return (((size_t)layer * c.held + c.places[b]) * pass.m->key_heads + head) * c.capacity;
}

// Queries and keys are normalised and turned; keys and values go into the cache
void remember(const Layer& l, int number) {
    const Model& m = *pass.m;
    const Call& c = *pass.c;
    int C = m.width, wide = padded(C, LANES), G = m.heads / m.key_heads, size = m.half_cache ? 2 : 4;
    share(pass.R * m.key_heads, 1, [&](int from, int end) {
        for (int item = from; item < end; item++) {
            int r = item / m.key_heads, head = item % m.key_heads, b = r / c.tokens;
            int slot = (int)c.lengths[b] + r % c.tokens;
            int64_t position = slot > c.padding[b] ? slot - c.padding[b] : 0;
            const float *cos = nullptr, *sin = nullptr;
            int rotated = l.rope < 0 ? 0 : c.rotated[l.rope];
            if (rotated) cos = c.cos[l.rope] + position * rotated / 2, sin = c.sin[l.rope] + position * rotated / 2;
            float* q = pass.qkv.data() + (size_t)r * pass.qkv_wide + head * G * C;
            float* k = pass.qkv.data() + (size_t)r * pass.qkv_wide + (m.heads + head) * C;
            const float* v = k + m.key_heads * C;
            for (int g = 0; g < G; g++) turn(q + g * C, l.q, cos, sin, rotated);
            turn(k, l.k, cos, sin, rotated);
            size_t tile = (size_t)(slot / LANES) * LANES * C;
            uint8_t* key = c.keys + (keys_at(number, b, head) * C + tile + slot % LANES) * size;
            uint8_t* value = c.values + (keys_at(number, b, head) + slot) * wide * size;
            for (int i = 0; i < C; i++) {
                if (m.half_cache) put_half(key + i * LANES * size, k[i]), put_half(value + i * size, v[i]);
                else memcpy(key + i * LANES * size, k + i, 4), memcpy(value + i * size, v + i, 4);
            }
        }
    });
    pool->barrier();
}

struct Query {  // a query head at a token, and the slots it sees
    int row, head, from, end;
};

float softmax(float* s, const Layer& l, const Query& q, int low, int high, int64_t padding) {
    float cap = pass.m->softcap, most = l.sinks ? l.sinks[q.head] : -INFINITY;
    vf top = vf{} + most, total = vf{};
    for (int i = low; i < high; i += LANES) {
        vf v = load<vf>(s + i);
        if (cap > 0) v = capped(v, cap);
        if (l.slopes)
            for (int j = 0; j < LANES; j++) v[j] += l.slopes[q.head] * (float)(i + j - padding);
        if (i < q.from || i + LANES > q.end)
            for (int j = 0; j < LANES; j++)
                if (i + j < q.from || i + j >= q.end) v[j] = -INFINITY;
        store(s + i, v);
        top = pick(v > top, v, top);
    }
    for (int j = 0; j < LANES; j++) most = top[j] > most ? top[j] : most;
    for (int i = low; i < high; i += LANES) {
        vf v = load<vf>(s + i), p = exponential(v - most);
        p = pick(v > -INFINITY, p, vf{});
        store(s + i, p);
        total += p;
    }
    float sum = l.sinks ? std::exp(l.sinks[q.head] - most) : 0.0f;
    for (int j = 0; j < LANES; j++) sum += total[j];
    return sum;
}

// Up to 8 queries that share a key head, of which there are `slots`: scores, softmax, weighted values
template <class Read, int R>
void attend(Own& own, const Layer& l, const Query* queries, const uint8_t* keys, const uint8_t* values, int slots,
            int64_t padding) {
    const Model& m = *pass.m;
    int C = m.width, wide = padded(C, LANES), long_ = slots + LANES, size = m.half_cache ? 2 : 4;
    int low = queries[0].from, high = queries[0].end;
    for (int r = 0; r < R; r++) {
        const float* q = pass.qkv.data() + (size_t)queries[r].row * pass.qkv_wide + queries[r].head * C;
        for (int i = 0; i < C; i++) own.queries[r * wide + i] = q[i] * l.scale;
        low = queries[r].from < low ? queries[r].from : low;
        high = queries[r].end > high ? queries[r].end : high;
    }
    low = low / LANES * LANES;
    int top = padded(high, LANES);
    float *s = own.scores.data(), inverse[R];
    for (int at = low; at < top; at += LANES)
        dots<Read, R, 1>(
            keys + (size_t)at * C * size, LANES * size, 0, C, own.queries.data(), wide, s + at, long_, false);
    for (int r = 0; r < R; r++) {
        float sum = softmax(s + r * long_, l, queries[r], low, top, padding);
        inverse[r] = sum > 0 ? 1.0f / sum : 0.0f;  // a row of padding sees nothing
    }
    const uint8_t* v = values + (size_t)low * wide * size;
    float* out = own.queries.data();
    for (int n = 0; n < wide;) {
        if (R <= 4 && wide - n >= 64) {
            dots<Read, R, 4>(
                v + n * size, (size_t)wide * size, LANES * size, high - low, s + low, long_, out + n, wide, false);
            n += 64;
        } else {
            dots<Read, R, 1>(v + n * size, (size_t)wide * size, 0, high - low, s + low, long_, out + n, wide, false);
            n += LANES;
        }
    }
    for (int r = 0; r < R; r++) {
        float* to = pass.attended.data() + (size_t)queries[r].row * pass.heads_wide + queries[r].head * C;
        for (int i = 0; i < C; i++) to[i] = out[r * wide + i] * inverse[r];
    }
}

void attention(int thread, const Layer& l, int number) {
    const Model& m = *pass.m;
    const Call& c = *pass.c;
    int G = m.heads / m.key_heads, all = G * c.tokens, pieces = (all + 7) / 8, size = m.half_cache ? 2 : 4;
    share(c.batch * m.key_heads * pieces, 1, [&](int from, int end) {
        for (int item = from; item < end; item++) {
            int b = item / pieces / m.key_heads, head = item / pieces % m.key_heads, first = item % pieces * 8;
            Query queries[8];
            int count = all - first < 8 ? all - first : 8, pad = (int)c.padding[b];
            for (int i = 0; i < count; i++) {
                int t = (first + i) / G, end_slot = (int)c.lengths[b] + t + 1;
                int start = l.window ? end_slot - l.window : 0;
                queries[i] = {b * c.tokens + t, head * G + (first + i) % G, start > pad ? start : pad, end_slot};
            }
            const uint8_t* keys = c.keys + keys_at(number, b, head) * m.width * size;
            const uint8_t* values = c.values + keys_at(number, b, head) * padded(m.width, LANES) * size;
            by_eights(count, [&]<int R>(int row) {
                Own& own = pass.own[thread];
                if (m.half_cache) attend<ReadF16, R>(own, l, queries + row, keys, values, c.capacity, pad);
                else attend<ReadF32, R>(own, l, queries + row, keys, values, c.capacity, pad);
            });
        }
    });
    pool->barrier();
}

// Attention to the memory, by queries that stand where those of a layer's own attention stood
void look_across(int thread, const Layer& l, int number) {
    const Model& m = *pass.m;
    const Call& c = *pass.c;
    Layer bare = {};
    bare.scale = l.scale;
    int tokens = pass.R / c.batch, pieces = (tokens + 7) / 8, size = m.half_cache ? 2 : 4;
    share(c.batch * m.heads * pieces, 1, [&](int from, int end) {
        for (int item = from; item < end; item++) {
            int b = item / pieces / m.heads, head = item / pieces % m.heads, first = item % pieces * 8;
            int count = tokens - first < 8 ? tokens - first : 8;
            Query queries[8];
            for (int i = 0; i < count; i++) queries[i] = {b * tokens + first + i, head, 0, (int)c.memory_lengths[b]};
            size_t at = (((size_t)number * c.memory_held + c.memory_places[b]) * m.heads + head) * c.memory_slots;
            const uint8_t* keys = c.memory_keys + at * m.width * size;
            const uint8_t* values = c.memory_values + at * padded(m.width, LANES) * size;
            by_eights(count, [&]<int R>(int row) {
                Own& own = pass.own[thread];
                if (m.half_cache) attend<ReadF16, R>(own, bare, queries + row, keys, values, c.memory_slots, 0);
                else attend<ReadF32, R>(own, bare, queries + row, keys, values, c.memory_slots, 0);
            });
        }
    });
    pool->barrier();
}

void embed(const Matrix& m, int64_t id, float* x) {
    int wide = padded(m.cols, 32), groups = wide / 32, lane = id % LANES;
    size_t tile = id / LANES;
    for (int k = 0; k < m.cols; k++) {
        size_t cell = (tile * wide + k) * LANES + lane, pair = (tile * wide + k / 2 * 2) * LANES + 2 * lane + k % 2;
        size_t group = tile * groups + k / 32;
        if (m.kind == FP32) x[k] = ((const float*)m.data)[cell];
        else if (m.kind == BF16) {
            uint32_t bits = (uint32_t)((const uint16_t*)m.data)[pair] << 16;
            memcpy(x + k, &bits, 4);
        } else {
            float scale = halves(m.scale + group * LANES)[lane];
            int in = k % 32, at = (m.kind == INT8 ? in : in % 16) / 4 * 64 + lane * 4 + in % 4;
            if (m.kind == INT8) x[k] = scale * (m.data[group * 512 + at] - 128);
            else x[k] = scale * ((m.data[group * 256 + at] >> (in < 16 ? 0 : 4) & 15) - 8);
        }
    }
}

void begin(int thread) {
    const Model& m = *pass.m;
    const Call& c = *pass.c;
    for (int r = thread; r < pass.R; r += pool->count) {
        float* x = pass.x.data() + (size_t)r * pass.wide;
        memset(x, 0, sizeof(float) * pass.wide);
        int64_t position = c.lengths[r / c.tokens] + r % c.tokens - c.padding[r / c.tokens];
        embed(m.embed, c.ids[r], x);
        for (int i = 0; i < m.dim; i++) x[i] *= m.embedding_scale;
        if (c.more)
            for (int i = 0; i < m.dim; i++) x[i] += c.more[(size_t)r * m.dim + i];
        if (m.place)
            for (int i = 0; i < m.dim; i++) x[i] += m.place[(position > 0 ? position : 0) * m.dim + i];
        normalise(m.embed_norm, x, x, m.dim);
    }
    pool->barrier();
}

// From here on only the last token of each row is needed
void last_only(int thread) {
    const Call& c = *pass.c;
    if (!c.last_only || pass.R == c.batch) return;
    if (thread == 0) {
        auto shorten = [&](std::vector<float>& v, int wide) {
            for (int b = 0; b < c.batch; b++) {
                const float* last = v.data() + (size_t)((b + 1) * c.tokens - 1) * wide;
                memmove(v.data() + (size_t)b * wide, last, sizeof(float) * wide);
            }
        };
        shorten(pass.x, pass.wide), shorten(pass.attended, pass.heads_wide);
    }
    pool->barrier();
    if (thread == 0) pass.R = c.batch;
    pool->barrier();
}

void finish(int thread) {
    const Model& m = *pass.m;
    const Call& c = *pass.c;
    last_only(thread);
    const Rows& last = prepare(thread, pass.shared, m.final_norm, pass.x, pass.wide, m.head);
    multiply(thread, m.head, nullptr, last, pass.R, [&](int r, int column, vf y, vf) {
        if (m.logit_softcap > 0) y = capped(y, m.logit_softcap);
        int left = m.head.rows - column;
        memcpy(c.logits + (size_t)r * m.head.rows + column, &y, sizeof(float) * (left < LANES ? left : LANES));
    });
}

void whole_pass(int thread) {
    const Model& m = *pass.m;
    const Norm none = {};
    begin(thread);
    for (int number = 0; number < m.count; number++) {
        const Layer& l = m.layers[number];
        const Rows* mlp = nullptr;  // beside attention the feed-forward layer reads x as it was before
        if (m.parallel) mlp = &prepare(thread, pass.shared_mlp, l.mlp_in, pass.x, pass.wide, l.up);
        const Rows* rows = &prepare(thread, pass.shared, l.attention_in, pass.x, pass.wide, l.qkv);
        multiply(thread, l.qkv, nullptr, *rows, pass.R, [&](int r, int column, vf y, vf) {
            store(pass.qkv.data() + (size_t)r * pass.qkv_wide + column, y);
        });
        remember(l, number);
        attention(thread, l, number);
        if (number == m.count - 1 && !m.parallel) last_only(thread);
        rows = &prepare(thread, pass.shared, none, pass.attended, pass.heads_wide, l.out);
        add(thread, l.out, *rows, l.attention_out, l.attention_post);
        if (l.cross_q.data) {
            rows = &prepare(thread, pass.shared, l.cross_in, pass.x, pass.wide, l.cross_q);
            multiply(thread, l.cross_q, nullptr, *rows, pass.R, [&](int r, int column, vf y, vf) {
                store(pass.qkv.data() + (size_t)r * pass.qkv_wide + column, y);
            });
            look_across(thread, l, number);
            rows = &prepare(thread, pass.shared, none, pass.attended, pass.heads_wide, l.cross_out);
            add(thread, l.cross_out, *rows, none, l.cross_post);
        }
        if (!m.parallel) mlp = &prepare(thread, pass.shared, l.mlp_in, pass.x, pass.wide, l.up);
        bool gated = l.gate.data != nullptr;
        const Matrix& first = gated ? l.gate : l.up;
        multiply(thread, first, gated ? &l.up : nullptr, *mlp, pass.R, [&](int r, int column, vf y, vf z) {
            y = activated(y, m.activation);
            store(pass.hidden.data() + (size_t)r * pass.hidden_wide + column, gated ? y * z : y);
        });
        rows = &prepare(thread, pass.shared, none, pass.hidden, pass.hidden_wide, l.down);
        add(thread, l.down, *rows, l.mlp_out, l.mlp_post);
    }
    if (pass.c->logits) finish(thread);
}

void room(const Model& m, const Call& c) {
    int heads = m.heads * m.width, keys = m.key_heads * m.width, R = c.batch * c.tokens;
    int most = m.dim > heads ? m.dim : heads;
    most = most > m.hidden ? most : m.hidden;
    pass.m = &m, pass.c = &c, pass.R = R;
    pass.wide = padded(m.dim, LANES), pass.qkv_wide = padded(heads + 2 * keys, LANES);
    pass.hidden_wide = padded(m.hidden, LANES), pass.heads_wide = padded(heads, LANES);
    auto grow = [](std::vector<float>& v, size_t size) { if (v.size() < size) v.resize(size); };
    grow(pass.x, (size_t)R * pass.wide), grow(pass.update, (size_t)R * pass.wide);
    grow(pass.qkv, (size_t)R * pass.qkv_wide), grow(pass.attended, (size_t)R * pass.heads_wide);
    grow(pass.hidden, (size_t)R * pass.hidden_wide);
    pass.shared.size(R, most);
    if (m.parallel) pass.shared_mlp.size(R, m.dim);
    if ((int)pass.own.size() < c.threads) pass.own.resize(c.threads);
    int slots = c.capacity > c.memory_slots ? c.capacity : c.memory_slots;
    for (Own& own : pass.own) {
        own.rows.size(1, most), own.mlp.size(1, m.dim);
        grow(own.first, (size_t)R * BLOCK * LANES), grow(own.second, (size_t)R * BLOCK * LANES);
        grow(own.scores, (size_t)8 * (slots + LANES)), grow(own.queries, (size_t)8 * padded(m.width, LANES));
    }
}

void awake() {  // a child process has its parent's memory, but not its threads
    static pid_t owner = 0;
    if (owner != getpid()) pool = new Pool, owner = getpid();
}

struct Single {  // one product alone, for tests
    const Matrix* matrix;
    const float* x;
    float* y;
    int rows;
} single;

}  // namespace

extern "C" {

// 16 if integer dot products are one instruction, and other facts that tests and reports ask for
int conjure_lanes(void) {
#if defined(__AVX512VNNI__)
    return 16;
#elif defined(__AVXVNNI__)
    return 8;
#else
    return 0;
#endif
}

size_t conjure_sizes(int which) {
    const size_t sizes[] = {sizeof(Matrix), sizeof(Norm), sizeof(Layer), sizeof(Model), sizeof(Call), sizeof(Source)};
    return sizes[which];
}

void conjure_pass(const Model* m, const Call* c) {
    std::lock_guard<std::mutex> lock(one_at_a_time);
    awake();
    room(*m, *c);
    pool->run(c->threads, whole_pass);
}

// y [rows, matrix.rows padded to 16] = x [rows, matrix.cols] times the matrix
void conjure_product(const Matrix* matrix, const float* x, float* y, int rows, int threads) {
    std::lock_guard<std::mutex> lock(one_at_a_time);
    awake();
    pass.R = rows;
    pass.shared.size(rows, matrix->cols);
    pass.attended.assign(x, x + (size_t)rows * matrix->cols);
    if ((int)pass.own.size() < threads) pass.own.resize(threads);
    for (Own& own : pass.own) {
        own.rows.size(1, matrix->cols);
        if (own.first.size() < (size_t)rows * BLOCK * LANES) own.first.resize((size_t)rows * BLOCK * LANES);
    }
    single = {matrix, x, y, rows};
    pool->run(threads, [](int thread) {
        const Matrix& m = *single.matrix;
        const Rows& rows = prepare(thread, pass.shared, Norm{}, pass.attended, m.cols, m);
        multiply(thread, m, nullptr, rows, single.rows, [&](int r, int column, vf y, vf) {
            store(single.y + (size_t)r * padded(m.rows, LANES) + column, y);
        });
    });
}

// Packs what `source` says; 0, or what is wrong with its values (`Trouble`)
int conjure_pack(const Source* source, int threads) {
    std::lock_guard<std::mutex> lock(one_at_a_time);
    awake();
    static std::atomic<int> trouble;
    static const Source* given;
    trouble = FINE, given = source;
    pool->run(threads, [](int) {
        share(padded(given->rows, LANES) / LANES, 1, [](int from, int end) {
            for (int tile = from; tile < end && !trouble; tile++)
                if (Trouble found = pack_tile(*given, tile)) trouble = found;
        });
    });
    return trouble;
}

// Keys and values of one layer of a memory, from [B, M, 2, H, C] into [B, H, slots / 16, C, 16] and [B, H, slots, C
// padded to 16]; what is behind the M is left as it was
void conjure_remember(
    const float* both, uint8_t* keys, uint8_t* values, int batch, int length, int slots, int heads, int width, int half,
    int threads) {
    std::lock_guard<std::mutex> lock(one_at_a_time);
    awake();
    static struct { const float* both; uint8_t *keys, *values; int batch, length, slots, heads, width, half; } given;
    given = {both, keys, values, batch, length, slots, heads, width, half};
    pool->run(threads, [](int) {
        const auto& g = given;
        share(g.batch * g.heads, 1, [&](int from, int end) {
            for (int item = from; item < end; item++)
                for (int at = 0; at < g.length; at++) {
                    int C = g.width, wide = padded(C, LANES), size = g.half ? 2 : 4;
                    const float* k = g.both + (((size_t)(item / g.heads) * g.length + at) * 2 * g.heads
                                               + item % g.heads) * C;
                    const float* v = k + (size_t)g.heads * C;
                    uint8_t* key = g.keys + (((size_t)item * g.slots + at / LANES * LANES) * C + at % LANES) * size;
                    uint8_t* value = g.values + ((size_t)item * g.slots + at) * wide * size;
                    for (int i = 0; i < C; i++) {
                        if (g.half) put_half(key + i * LANES * size, k[i]), put_half(value + i * size, v[i]);
                        else memcpy(key + i * LANES * size, k + i, 4), memcpy(value + i * size, v + i, 4);
                    }
                }
        });
    });
}

void conjure_row(const Matrix* matrix, int64_t row, float* x) { embed(*matrix, row, x); }
}
