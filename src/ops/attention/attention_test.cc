// What attention's spec cannot say: a row's bits do not depend on who is computed with it, nor on
// how its keys came to lie where they lie.
#include "ops/attention/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "autograd/tape.h"
#include "base/check.h"
#include "device/cpu/cpu_device.h"
#include "ops/add/add.h"
#include "ops/test_support.h"

namespace ferry::ops {
namespace {

struct Layout {
  DType dtype;
  int64_t heads, key_heads, d_qk, d_v;
};

std::vector<Layout> layouts() {
  std::vector<Layout> all;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    all.push_back({dtype, 3, 3, 24, 16});
    all.push_back({dtype, 6, 2, 17, 19});
    all.push_back({dtype, 5, 1, 40, 32});
  }
  return all;
}

constexpr float kScale = 0.2f;
constexpr int32_t kTokens = 150;  // three tiles of keys, the last partial

struct Inputs {
  Tensor q, k, v;
  explicit Inputs(const Layout& l, int64_t tokens = kTokens, uint64_t stream = 0)
      : q(normal({tokens, l.heads, l.d_qk}, l.dtype, stream)),
        k(normal({tokens, l.key_heads, l.d_qk}, l.dtype, stream + 1)),
        v(normal({tokens, l.key_heads, l.d_v}, l.dtype, stream + 2)) {}
};

Segments one_document(int32_t tokens) {
  return Segments::packed(std::vector<int32_t>{tokens}, cpu_device());
}

/// Row t at position `begin + t` of a document whose keys begin at row `keys`.
Segments continued(int32_t begin, int32_t count, int32_t keys) {
  std::vector<int32_t> position, key_begin;
  for (int32_t i = 0; i < count; ++i) {
    position.push_back(begin + i);
    key_begin.push_back(keys);
  }
  return Segments::cached(position, key_begin, cpu_device());
}

std::vector<char> bytes(const Tensor& t) {
  std::vector<char> out(t.bytes());
  t.copy_bytes_to(out.data());
  return out;
}

/// Rows [begin, begin + part.dim(0)) of `whole` are `part`, bit for bit.
::testing::AssertionResult same_rows(const Tensor& whole, int64_t begin, const Tensor& part) {
  if (bytes(whole.slice(0, begin, begin + part.dim(0))) == bytes(part))
    return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "rows from " << begin << " differ";
}

/// A cache of `rows` rows, NaN except for the first `written` rows of `from`, laid at row `at`.
Tensor cache_with(const Tensor& from, int64_t written, int64_t rows, int64_t at) {
  const auto row = from.bytes() / static_cast<size_t>(from.dim(0));
  std::vector<char> all(row * static_cast<size_t>(rows), '\xff');
  const std::vector<char> source = bytes(from);
  std::memcpy(all.data() + row * static_cast<size_t>(at),
              source.data(),
              row * static_cast<size_t>(written));
  Tensor t = Tensor::empty({rows, from.dim(1), from.dim(2)}, from.dtype(), from.device());
  t.copy_bytes_from(all.data());
  return t;
}

TEST(Attention, OneQueryAtATimeAgainstACacheIsTheWhole) {
  for (const Layout& l : layouts()) {
    const Inputs in(l);
    const Tensor whole = attention(in.q, in.k, in.v, one_document(kTokens), kScale);
    for (int32_t t = 0; t < kTokens; ++t) {
      const Tensor k = cache_with(in.k, t + 1, 210, 33), v = cache_with(in.v, t + 1, 210, 33);
      ASSERT_TRUE(same_rows(
          whole, t, attention(in.q.slice(0, t, t + 1), k, v, continued(t, 1, 33), kScale)));
    }
  }
}

TEST(Attention, ChunkedPrefillIsTheWhole) {
  for (const Layout& l : layouts()) {
    const Inputs in(l);
    const Tensor whole = attention(in.q, in.k, in.v, one_document(kTokens), kScale);
    for (const int32_t chunk : {1, 7, 64, 100})
      for (int32_t begin = 0; begin < kTokens; begin += chunk) {
        const int32_t end = std::min(kTokens, begin + chunk);
        const Tensor k = cache_with(in.k, end, 300, 5), v = cache_with(in.v, end, 300, 5);
        const Tensor part =
            attention(in.q.slice(0, begin, end), k, v, continued(begin, end - begin, 5), kScale);
        ASSERT_TRUE(same_rows(whole, begin, part)) << "chunks of " << chunk;
      }
  }
}

TEST(Attention, DocumentsTogetherAreDocumentsAlone) {
  for (const Layout& l : layouts()) {
    const std::vector<int32_t> lengths = {70, 1, 13, 66};
    const Inputs in(l);
    const Tensor whole =
        attention(in.q, in.k, in.v, Segments::packed(lengths, cpu_device()), kScale);
    int32_t begin = 0;
    for (const int32_t length : lengths) {
      const Tensor alone = attention(in.q.slice(0, begin, begin + length),
                                     in.k.slice(0, begin, begin + length),
                                     in.v.slice(0, begin, begin + length),
                                     one_document(length),
                                     kScale);
      EXPECT_TRUE(same_rows(whole, begin, alone)) << "document of " << length;
      begin += length;
    }
  }
}

TEST(Segments, ATokenBeforeItsDocumentOrKeysBeforeTheFirstAreABug) {
  EXPECT_THROW(Segments::cached({0, -1}, {0, 0}, cpu_device()), Bug);
  EXPECT_THROW(Segments::cached({0, 1}, {0, -1}, cpu_device()), Bug);
  EXPECT_EQ(Segments::cached({}, {}, cpu_device()).tokens(), 0);
}

TEST(Attention, ADecodingBatchIsEachOfItsRequestsAlone) {
  for (const Layout& l : layouts()) {
    const Inputs in(l);
    // Requests of different lengths over one cache, two of them forks of one document.
    const std::vector<int32_t> position = {3, 64, 12, 12, 40}, key_begin = {0, 4, 70, 70, 90};
    const Tensor q = in.q.slice(0, 0, 5);
    const Tensor together =
        attention(q, in.k, in.v, Segments::cached(position, key_begin, cpu_device()), kScale);
    for (int32_t i = 0; i < 5; ++i) {
      const auto at = static_cast<size_t>(i);
      const Tensor alone = attention(
          q.slice(0, i, i + 1), in.k, in.v, continued(position[at], 1, key_begin[at]), kScale);
      EXPECT_TRUE(same_rows(together, i, alone)) << "request " << i;
    }
  }
}

TEST(Attention, AHeadIsItselfAmongHeads) {
  for (const Layout& l : layouts()) {
    const Inputs in(l);
    const Tensor whole = attention(in.q, in.k, in.v, one_document(kTokens), kScale);
    const int64_t h = l.heads - 1, g = l.key_heads - 1;
    const Tensor alone = attention(in.q.slice(1, h, h + 1),
                                   in.k.slice(1, g, g + 1),
                                   in.v.slice(1, g, g + 1),
                                   one_document(kTokens),
                                   kScale);
    EXPECT_EQ(whole.slice(1, h, h + 1).to_f32(), alone.to_f32());
  }
}

TEST(Attention, WhatARowDoesNotSeeMayBeInfinite) {
  for (const Layout& l : layouts()) {
    const Inputs in(l);
    const Tensor whole = attention(in.q, in.k, in.v, one_document(kTokens), kScale);
    for (const int32_t poisoned : {20, 75, 128}) {
      for (const Tensor& t : {in.k, in.v}) {
        std::vector<float> values = t.to_f32();
        const auto row = static_cast<size_t>(t.dim(1) * t.dim(2));
        std::fill(values.begin() + static_cast<int64_t>(row) * poisoned,
                  values.begin() + static_cast<int64_t>(row) * (poisoned + 1),
                  INFINITY);
        Tensor changed = Tensor::empty(t.shape(), t.dtype(), t.device());
        changed.assign_f32(values);
        const bool keys = t.storage() == in.k.storage();
        const Tensor got = attention(
            in.q, keys ? changed : in.k, keys ? in.v : changed, one_document(kTokens), kScale);
        EXPECT_TRUE(same_rows(got, 0, whole.slice(0, 0, poisoned))) << "row " << poisoned;
        EXPECT_FALSE(same_rows(got, poisoned, whole.slice(0, poisoned, kTokens)));
      }
    }
  }
}

struct Gradients {
  Tensor q, k, v;
};

Gradients gradients(Inputs in, const Tensor& d_out, const Segments& segments) {
  in.q.set_needs_grad(true);
  in.k.set_needs_grad(true);
  in.v.set_needs_grad(true);
  Tape tape(&accumulate);
  Tensor out;
  {
    const Tape::Recording recording(&tape);
    out = attention(in.q, in.k, in.v, segments, kScale);
  }
  tape.backward(out, d_out);
  return {tape.grad(in.q), tape.grad(in.k), tape.grad(in.v)};
}

Tensor copy_of(const Tensor& t) {
  Tensor c = Tensor::empty(t.shape(), t.dtype(), t.device());
  c.assign_f32(t.to_f32());
  return c;
}

TEST(Attention, GradientsOfADocumentAreItsOwn) {
  for (const Layout& l : layouts()) {
    const std::vector<int32_t> lengths = {70, 1, 13, 66};
    const Inputs in(l);
    const Tensor d_out = normal({kTokens, l.heads, l.d_v}, l.dtype, 9);
    const Gradients whole = gradients(in, d_out, Segments::packed(lengths, cpu_device()));
    int32_t begin = 0;
    for (const int32_t length : lengths) {
      Inputs part = in;
      part.q = copy_of(in.q.slice(0, begin, begin + length));
      part.k = copy_of(in.k.slice(0, begin, begin + length));
      part.v = copy_of(in.v.slice(0, begin, begin + length));
      const Gradients alone =
          gradients(part, d_out.slice(0, begin, begin + length), one_document(length));
      EXPECT_TRUE(same_rows(whole.q, begin, alone.q)) << "d_q of " << length;
      EXPECT_TRUE(same_rows(whole.k, begin, alone.k)) << "d_k of " << length;
      EXPECT_TRUE(same_rows(whole.v, begin, alone.v)) << "d_v of " << length;
      begin += length;
    }
  }
}

TEST(Attention, KeysThatNobodySeesGetNoGradient) {
  Inputs in({DType::kF32, 2, 2, 8, 8}, 40);
  in.q = copy_of(in.q.slice(0, 0, 6));
  const Gradients g =
      gradients(in, normal({6, 2, 8}, DType::kF32, 9), continued(4, 6, 10));  // rows 10 to 19
  for (const Tensor& d : {g.k, g.v}) {
    const std::vector<float> values = d.to_f32();
    for (size_t i = 0; i < values.size(); ++i) {
      const size_t row = i / 16;
      ASSERT_EQ(values[i] == 0, row < 10 || row >= 20) << "row " << row;
    }
  }
}

TEST(Attention, RefusesWhatItCannotDo) {
  const Inputs in({DType::kF32, 2, 2, 8, 8}, 10);
  EXPECT_THROW(attention(in.q, in.k, in.v, one_document(9), kScale), Bug);
  EXPECT_THROW(attention(in.q, in.k, in.v, continued(1, 10, 0), kScale), Bug);  // keys past the end
  EXPECT_THROW(attention(in.q, in.k, in.v, one_document(10), 0), Bug);
  Inputs wrong = in;
  wrong.k = wrong.k.slice(2, 0, 7);
  EXPECT_THROW(attention(wrong.q, wrong.k, wrong.v, one_document(10), kScale), Bug);
  // Two documents that share a prefix: fine to read, no gradient.
  const Segments forks = Segments::cached(
      {3, 4, 0, 1, 2, 3, 4, 5, 6, 7}, {0, 0, 2, 2, 2, 2, 2, 2, 2, 2}, cpu_device());
  EXPECT_NO_THROW(attention(in.q, in.k, in.v, forks, kScale));
  EXPECT_THROW(gradients(in, in.q, forks), Bug);
}

}  // namespace
}  // namespace ferry::ops
