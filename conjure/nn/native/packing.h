// Float matrices into the tiles of step.cpp, rounded on the way as conjure/nn/rounding.py rounds, bit for bit.

#pragma once

#include "products.h"

// Rows of a matrix that become whole tiles; `stride` is in elements of the type it comes in.
struct Source {
    const uint8_t* values;
    uint8_t* data;
    uint16_t* scale;
    const float* clips;  // int4: factors of the largest value of a group that are tried as its scale
    int64_t stride;
    int32_t kind, type, rows, cols, clip_count, unused;  // type: FP32, BF16, or 2 for fp16
};

namespace {

enum Trouble { FINE, NOT_FINITE, TOO_LARGE };
constexpr int FP16 = 2, GROUP = 32;

inline float widened(uint16_t half) {
    uint16_t lanes[LANES] = {half};
    return halves(lanes)[0];
}

// A group of 32 inputs of a row as floats; 0 beyond its end
inline void group_of(const Source& s, int row, int k, float* v) {
    int count = s.cols - k < GROUP ? s.cols - k : GROUP;
    if (count < GROUP) memset(v, 0, sizeof(float) * GROUP);
    const uint8_t* at = s.values + ((size_t)row * s.stride + k) * (s.type == FP32 ? 4 : 2);
    if (s.type == FP32) memcpy(v, at, sizeof(float) * count);
    else if (s.type == BF16) {
        const uint16_t* h = (const uint16_t*)at;
        for (int i = 0; i < count; i++) {
            uint32_t bits = (uint32_t)h[i] << 16;
            memcpy(v + i, &bits, 4);
        }
    } else
        for (int i = 0; i < count; i++) v[i] = widened(((const uint16_t*)at)[i]);
}

inline uint16_t to_bf16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 0x40);  // no number stays none
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// A scale in eight bits that float16 and bfloat16 both hold; never 0 for what is not
inline float eight_bits(float scale, uint16_t* half) {
    uint32_t bits = (uint32_t)to_bf16(scale) << 16;
    float held;
    memcpy(&held, &bits, 4);
    put_half(half, held);
    if ((*half & 0x7fff) == 0 && scale != 0) *half = (uint16_t)((*half & 0x8000) | 1);
    return widened(*half);
}

inline vf nearest(const float* v, float scale, float low, float high) {
    vf x = load<vf>(v) / scale;
    x = pick(x < low, vf{} + low, pick(x > high, vf{} + high, x));
    return (x + 12582912.0f) - 12582912.0f;
}

inline int32_t bits_of(float value) {
    int32_t bits;
    memcpy(&bits, &value, 4);
    return bits & 0x7fffffff;
}

// The largest value of a group without its sign, as bits, which are in the order of the values
inline int32_t largest(const float* v) {
    vi a = load<vi>(v) & 0x7fffffff, b = load<vi>(v + LANES) & 0x7fffffff, larger = a > b ? a : b;
    int32_t most = 0;
    for (int i = 0; i < LANES; i++) most = larger[i] > most ? larger[i] : most;
    return most;
}

inline Trouble round8(const float* v, uint8_t* to, uint16_t* scale) {
    int32_t bits = largest(v);
    if (bits >= 0x7f800000) return NOT_FINITE;
    float most, step;
    memcpy(&most, &bits, 4);
    step = eight_bits(most / 127.0f, scale);
    if (!std::isfinite(step)) return TOO_LARGE;
    for (int i = 0; i < GROUP; i += LANES) {
        vf q = step == 0 ? vf{} : nearest(v + i, step, -127, 127);
        v16b bytes = __builtin_convertvector((vi)(q + 12582912.0f) - 0x4b400000 + 128, v16b);
        for (int j = 0; j < LANES; j += 4) memcpy(to + (i + j) / 4 * 64, (const char*)&bytes + j, 4);
    }
    return FINE;
}

inline Trouble round4(const Source& s, const float* v, uint8_t* to, uint16_t* scale) {
    int32_t bits = largest(v);
    if (bits >= 0x7f800000) return NOT_FINITE;
    int at = 0;  // the first of equally large values gives the scale its sign
    while (bits_of(v[at]) != bits) at++;
    float most = v[at], least = INFINITY, best = 0;
    *scale = 0;
    for (int c = 0; c < s.clip_count; c++) {
        uint16_t half;
        float step = eight_bits(most * s.clips[c], &half), error = 0;
        if (!std::isfinite(step)) return TOO_LARGE;
        vf apart = vf{};
        for (int i = 0; i < GROUP; i += LANES) {
            vf moved = (step == 0 ? vf{} : nearest(v + i, step, -8, 7) * step) - load<vf>(v + i);
            apart += moved * moved;
        }
        for (int i = 0; i < LANES; i++) error += apart[i];
        if (error < least) least = error, best = step, *scale = half;
    }
    uint8_t wide[GROUP];
    for (int i = 0; i < GROUP; i += LANES) {
        vf q = best == 0 ? vf{} : nearest(v + i, best, -8, 7);
        v16b bytes = __builtin_convertvector((vi)(q + 12582912.0f) - 0x4b400000 + 8, v16b);
        memcpy(wide + i, &bytes, LANES);
    }
    for (int i = 0; i < LANES; i++) to[i / 4 * 64 + i % 4] = (uint8_t)(wide[i] | wide[i + LANES] << 4);
    return FINE;
}

Trouble pack_tile(const Source& s, int tile) {
    int groups = padded(s.cols, GROUP) / GROUP;
    int bytes = GROUP * LANES * (s.kind == FP32 ? 8 : s.kind == BF16 ? 4 : s.kind == INT8 ? 2 : 1) / 2;  // of a group
    for (int g = 0; g < groups; g++) {
        uint8_t* to = s.data + ((size_t)tile * groups + g) * bytes;
        uint16_t* scale = s.scale + ((size_t)tile * groups + g) * LANES;  // of integers only
        for (int lane = 0; lane < LANES; lane++) {
            float v[GROUP] = {};
            bool there = tile * LANES + lane < s.rows;
            if (there) group_of(s, tile * LANES + lane, g * GROUP, v);
            Trouble trouble = FINE;
            if (!there && s.kind >= INT8) {
                for (int j = 0; j < bytes; j += 64) memset(to + j + 4 * lane, 0, 4);
                scale[lane] = 0;
            } else if (s.kind == FP32)
                for (int k = 0; k < GROUP; k++) memcpy(to + (k * LANES + lane) * 4, v + k, 4);
            else if (s.kind == BF16)
                for (int k = 0; k < GROUP; k += 2) {
                    uint32_t pair = (uint32_t)to_bf16(v[k]) | (uint32_t)to_bf16(v[k + 1]) << 16;
                    memcpy(to + (k / 2 * LANES + lane) * 4, &pair, 4);
                }
            else if (s.kind == INT8) trouble = round8(v, to + 4 * lane, scale + lane);
            else trouble = round4(s, v, to + 4 * lane, scale + lane);
            if (trouble) return trouble;
        }
    }
    return FINE;
}

}  // namespace
