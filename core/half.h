// SPDX-License-Identifier: Apache-2.0
// bfloat16 and IEEE binary16 to and from binary32, in plain C: to 16 bits by rounding to nearest, ties to even; what is
// too large becomes infinity; NaN stays NaN. And from 8 bits (E4M3: bias 7, no infinity, the largest is 448). Any
// thread.
#ifndef SL_CORE_HALF_H
#define SL_CORE_HALF_H

#include <stdint.h>
#include <string.h>

static inline uint32_t sl_f32_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float sl_f32_from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline float sl_bf16_to_f32(uint16_t half)
{
    return sl_f32_from_bits((uint32_t)half << 16);
}

static inline uint16_t sl_bf16_from_f32(float value)
{
    uint32_t bits = sl_f32_bits(value);
    if ((bits & 0x7fffffff) > 0x7f800000) {
        return (uint16_t)(bits >> 16 | 0x40); // rounding could carry a NaN into infinity
    }
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static inline float sl_f16_to_f32(uint16_t half)
{
    // The exponent's bias differs by 112; a multiplication moves it and normalises subnormals on the way.
    uint32_t magnitude = half & 0x7fff;
    uint32_t bits = sl_f32_bits(sl_f32_from_bits(magnitude << 13) * 0x1p112f);
    if (magnitude >= 0x7c00) {
        bits |= 0x7f800000;
    }
    return sl_f32_from_bits(bits | (uint32_t)(half & 0x8000) << 16);
}

static inline float sl_f8e4m3_to_f32(uint8_t byte)
{
    // As above: the biases differ by 120.
    uint32_t magnitude = byte & 0x7f;
    float value = sl_f32_from_bits(magnitude << 20) * 0x1p120f;
    uint32_t bits = magnitude == 0x7f ? 0x7fc00000 : sl_f32_bits(value);
    return sl_f32_from_bits(bits | (uint32_t)(byte & 0x80) << 24);
}

static inline uint16_t sl_f16_from_f32(float value)
{
    uint32_t bits = sl_f32_bits(value);
    uint32_t sign = bits >> 16 & 0x8000;
    uint32_t magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) {
        return (uint16_t)(sign | 0x7e00 | (magnitude >> 13 & 0x3ff));
    }
    if (magnitude >= 0x47800000) { // 65536 and more
        return (uint16_t)(sign | 0x7c00);
    }
    if (magnitude < 0x38800000) { // subnormal: 0.5 has just the unit of the last place, so the addition rounds
        return (uint16_t)(sign | (sl_f32_bits(sl_f32_from_bits(magnitude) + 0.5f) - 0x3f000000));
    }
    magnitude += 0xfff + (magnitude >> 13 & 1);
    return (uint16_t)(sign | (magnitude - (112u << 23)) >> 13);
}

#endif
