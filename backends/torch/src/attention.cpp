// Attention in bfloat16 on processors that multiply such numbers but have no tiles for it (AVX512-BF16 without AMX):
// libtorch's own widens them first.
//
// Rows of the queries meet one block of keys after the other, while the maximum and the sum of the softmax are kept up
// (https://arxiv.org/abs/2205.14135). The products are oneDNN's, whose right operand holds pairs of rows interleaved.

#include "guarded.h"

#if defined(__x86_64__) && defined(__linux__)

#include <ATen/Parallel.h>
#include <ATen/native/CPUBlas.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <immintrin.h>
#include <limits>
#include <vector>

// Functions that only these processors can run. Nothing else is compiled for them: the linker keeps one of equal inline
// functions, for whoever calls.
#define WIDE __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16")))

namespace {

using at::BFloat16;
namespace blas = at::native::cpublas;

constexpr int64_t LANES = 16;
// Rows of the queries and keys that meet at a time: their scores fit the second cache.
constexpr int64_t ROWS = 64;
constexpr int64_t KEYS = 512;
// Keys of a product.
constexpr int64_t COLUMNS = 32;
static_assert(KEYS % COLUMNS == 0 && COLUMNS % 2 == 0);

constexpr float INFINITE = std::numeric_limits<float>::infinity();

bool is_supported() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bf16") &&
         !blas::could_pack(at::kBFloat16);
}

constexpr int64_t rounded_up(int64_t count, int64_t to) { return (count + to - 1) / to * to; }

WIDE inline __mmask16 first(int64_t count) {
  return static_cast<__mmask16>(count >= LANES ? 0xffff : (1u << count) - 1);
}

WIDE inline void store(BFloat16 *to, __mmask16 lanes, __m512 x) {
  _mm256_mask_storeu_epi16(to, lanes, reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x)));
}

// 2^x for x that is no more than zero, as exact as 32 bits are. What is no number stays none.
WIDE inline __m512 power_of_two(__m512 x) {
  x = _mm512_max_ps(_mm512_set1_ps(-126.0f), x);
  const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT);
  const __m512 rest = _mm512_sub_ps(x, whole);
  // Taylor's series; half the distance of whole numbers is the most that is left.
  __m512 sum = _mm512_set1_ps(1.5403530e-4f);
  for (const float factor : {1.3333558e-3f, 9.6181291e-3f, 5.5504109e-2f, 2.4022651e-1f, 6.9314718e-1f, 1.0f}) {
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(factor));
  }
  return _mm512_scalef_ps(sum, whole);
}

// A row's softmax so far, over powers of two.
struct Softmax {
  float maximum = -INFINITE;
  float sum = 0;

  // Takes in more scores, writes what each weighs, and tells by what those before weigh less now.
  WIDE float take(const float *scores, int64_t count, float scale, BFloat16 *weights) {
    const __m512 scales = _mm512_set1_ps(scale);
    __m512 highest = _mm512_set1_ps(-INFINITE);
    for (int64_t at = 0; at < count; at += LANES) {
      const __mmask16 lanes = first(count - at);
      const __m512 score = _mm512_mul_ps(_mm512_maskz_loadu_ps(lanes, scores + at), scales);
      highest = _mm512_mask_max_ps(highest, lanes, highest, score);
    }
    const float before = maximum;
    maximum = std::max(maximum, _mm512_reduce_max_ps(highest));
    __m512 added = _mm512_setzero_ps();
    for (int64_t at = 0; at < count; at += LANES) {
      const __mmask16 lanes = first(count - at);
      const __m512 score = _mm512_maskz_loadu_ps(lanes, scores + at);
      const __m512 weight =
          power_of_two(_mm512_fmsub_ps(score, scales, _mm512_set1_ps(maximum)));
      added = _mm512_mask_add_ps(added, lanes, added, weight);
      store(weights + at, lanes, weight);
    }
    const float factor = std::exp2(before - maximum);
    sum = factor * sum + _mm512_reduce_add_ps(added);
    return factor;
  }
};

WIDE void divide(const float *from, int64_t count, float by, BFloat16 *to) {
  for (int64_t at = 0; at < count; at += LANES) {
    const __mmask16 lanes = first(count - at);
    const __m512 x = _mm512_maskz_loadu_ps(lanes, from + at);
    store(to + at, lanes, _mm512_div_ps(x, _mm512_set1_ps(by)));
  }
}

// One head of one of a batch: rows that lie `stride` apart.
struct Rows {
  const BFloat16 *data;
  int64_t stride;

  Rows(const at::Tensor &x, int64_t head)
      : data(x.const_data_ptr<BFloat16>() + head / x.size(1) * x.stride(0) + head % x.size(1) * x.stride(1)),
        stride(x.stride(2)) {}

  const BFloat16 *operator[](int64_t row) const { return data + row * stride; }
};

// Keys `[m, d]` as `[blocks, d / 2, COLUMNS, 2]`.
void pack_keys(Rows keys, int64_t count, int64_t depth, BFloat16 *to) {
  for (int64_t key = 0; key < count; ++key) {
    BFloat16 *column = to + key / COLUMNS * COLUMNS * depth + key % COLUMNS * 2;
    for (int64_t at = 0; at < depth; at += 2) {
      std::memcpy(column + at * COLUMNS, keys[key] + at, 2 * sizeof(BFloat16));
    }
  }
}

// Values `[m, d]` as `[m / 2, d, 2]`, the last of an odd number beside zeros.
void pack_values(Rows values, int64_t count, int64_t depth, BFloat16 *to) {
  const std::vector<BFloat16> zeros(depth);
  for (int64_t value = 0; value < count; value += 2) {
    const BFloat16 *even = values[value];
    const BFloat16 *odd = value + 1 < count ? values[value + 1] : zeros.data();
    for (int64_t at = 0; at < depth; ++at, to += 2) {
      to[0] = even[at];
      to[1] = odd[at];
    }
  }
}

// The same with rows that are whole in memory.
at::Tensor with_rows(const at::Tensor &x) {
  TORCH_CHECK(x.dim() == 4 && x.scalar_type() == at::kBFloat16 && x.device().is_cpu(), "no rows of bfloat16");
  return x.stride(3) == 1 && x.stride(2) >= x.size(3) ? x : x.contiguous();
}

at::Tensor attention(at::Tensor q, at::Tensor k, at::Tensor v, double scale) {
  for (at::Tensor *x : {&q, &k, &v}) {
    *x = with_rows(*x);
  }
  const int64_t batch = q.size(0), heads = q.size(1), rows = q.size(2), keys = k.size(2);
  const int64_t depth = q.size(3), width = v.size(3);
  TORCH_CHECK(k.size(0) == batch && v.size(0) == batch && k.size(1) == heads && v.size(1) == heads &&
                  k.size(3) == depth && v.size(2) == keys,
              "the queries, keys and values are of different sizes");
  TORCH_CHECK(keys > 0 && width > 0 && depth > 0 && depth % 2 == 0, "nothing to attend to, or odd rows");
  const int64_t all_heads = batch * heads, blocks = rounded_up(rows, ROWS) / ROWS;
  const int64_t keys_size = rounded_up(keys, COLUMNS) * depth, values_size = rounded_up(keys, 2) * width;
  const float per_score = static_cast<float>(scale * 1.4426950408889634);

  at::Tensor packed_keys = at::empty({all_heads, keys_size}, q.options());
  at::Tensor packed_values = at::empty({all_heads, values_size}, q.options());
  auto *const key_data = packed_keys.mutable_data_ptr<BFloat16>();
  auto *const value_data = packed_values.mutable_data_ptr<BFloat16>();
  at::parallel_for(0, all_heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t head = begin; head < end; ++head) {
      pack_keys(Rows(k, head), keys, depth, key_data + head * keys_size);
      pack_values(Rows(v, head), keys, width, value_data + head * values_size);
    }
  });

  at::Tensor out = at::empty({batch, rows, heads, width}, q.options());
  auto *const out_data = out.mutable_data_ptr<BFloat16>();
  at::parallel_for(0, all_heads * blocks, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> scores(ROWS * KEYS), sums(ROWS * width);
    std::vector<BFloat16> weights(ROWS * KEYS);
    std::vector<Softmax> softmax(ROWS);
    for (int64_t block = begin; block < end; ++block) {
      const int64_t head = block / blocks, from = block % blocks * ROWS, count = std::min(ROWS, rows - from);
      const Rows queries(q, head);
      softmax.assign(ROWS, {});
      for (int64_t key = 0; key < keys; key += KEYS) {
        const int64_t here = std::min(KEYS, keys - key), pairs = rounded_up(here, 2);
        for (int64_t column = 0; column < here; column += COLUMNS) {
          const BFloat16 *packed = key_data + head * keys_size + (key + column) * depth;
          blas::brgemm(count, COLUMNS, depth, queries.stride, COLUMNS, KEYS, false, queries[from], packed,
                       scores.data() + column);
        }
        for (int64_t row = 0; row < count; ++row) {
          BFloat16 *const weight = weights.data() + row * KEYS;
          const float factor = softmax[row].take(scores.data() + row * KEYS, here, per_score, weight);
          std::fill(weight + here, weight + pairs, BFloat16(0.0f));
          float *const sum = sums.data() + row * width;
          std::for_each(sum, sum + (key > 0 ? width : 0), [factor](float &x) { x *= factor; });
        }
        const BFloat16 *packed = value_data + head * values_size + key * width;
        blas::brgemm(count, width, pairs, KEYS, width, width, key > 0, weights.data(), packed, sums.data());
      }
      for (int64_t row = 0; row < count; ++row) {
        const int64_t place = ((head / heads * rows + from + row) * heads + head % heads) * width;
        divide(sums.data() + row * width, width, softmax[row].sum, out_data + place);
      }
    }
    blas::brgemm_release();
  });
  return out.transpose(1, 2);
}

} // namespace

#else

namespace {

bool is_supported() { return false; }

at::Tensor attention(at::Tensor, at::Tensor, at::Tensor, double) {
  TORCH_CHECK(false, "not on this processor");
}

} // namespace

#endif

extern "C" {

// Whether `smartedit_torch_attention` can be called, and is faster than what libtorch has.
bool smartedit_torch_has_attention() noexcept {
  try {
    return is_supported();
  } catch (...) {
    return false;
  }
}

// The attention of queries `[batch, heads, n, d]` to keys `[batch, heads, m, d]` with values `[batch, heads, m, e]` as a
// tensor of its own, or null with the reason in `message`.
at::Tensor *smartedit_torch_attention(const at::Tensor *q, const at::Tensor *k, const at::Tensor *v,
                                      double scale, char *message, size_t length) noexcept {
  return guarded(message, length, [=] { return attention(*q, *k, *v, scale); });
}
}
