#include "nnopbase/tensor.h"

#include <algorithm>
#include <cstring>

#include "nnopbase/numbers.h"
#include "runtime/memory.h"
#include "runtime/settings.h"

namespace ascend_sim {
namespace {

/// Visits a view as runs of `count` elements, `stride` apart, in row-major order:
/// f(first element's offset, stride, count).
template <class F>
void for_each_run(const Tensor& t, const F& f) {
  if (t.elements() == 0) return;
  // Trailing dimensions that lie as one are one run.
  int64_t count = 1, stride = 1;
  int outer = t.rank();
  for (; outer > 0; --outer) {
    const auto d = static_cast<size_t>(outer - 1);
    if (t.shape[d] == 1) continue;
    if (count == 1)
      stride = t.strides[d];
    else if (t.strides[d] != stride * count)
      break;
    count *= t.shape[d];
  }
  std::vector<int64_t> index(static_cast<size_t>(outer));
  int64_t at = t.offset;
  while (true) {
    f(at, stride, count);
    int d = outer - 1;
    for (; d >= 0; --d) {
      const auto i = static_cast<size_t>(d);
      at += t.strides[i];
      if (++index[i] < t.shape[i]) break;
      at -= t.strides[i] * t.shape[i];
      index[i] = 0;
    }
    if (d < 0) return;
  }
}

template <class T>
T* elements_of(const Tensor& t) {
  return reinterpret_cast<T*>(alias(t.data));
}

void check_type(bool known, const Tensor& t) {
  if (!known) violation("an op touches elements of " + to_string(t.dtype));
}

template <class Number, class Convert>
std::vector<Number> read(const Tensor& t, const Convert& convert) {
  std::vector<Number> out(static_cast<size_t>(t.elements()));
  Number* to = out.data();
  check_type(with_type(t.dtype,
                       [&](auto type) {
                         using T = decltype(type);
                         const T* from = elements_of<T>(t);
                         for_each_run(t, [&](int64_t at, int64_t stride, int64_t count) {
                           if constexpr (std::is_same_v<T, Number>) {
                             if (stride == 1) {
                               std::copy_n(from + at, count, to);
                               to += count;
                               return;
                             }
                           }
                           for (int64_t i = 0; i < count; ++i)
                             *to++ = convert(from[at + i * stride]);
                         });
                       }),
             t);
  return out;
}

template <class Number>
void write(const Tensor& t, std::span<const Number> values) {
  if (static_cast<int64_t>(values.size()) != t.elements())
    violation("an op stores " + std::to_string(values.size()) + " values into " +
              to_string(t.shape));
  const Number* from = values.data();
  const bool cut = cuts_on_this_thread();
  check_type(with_type(t.dtype,
                       [&](auto type) {
                         using T = decltype(type);
                         T* to = elements_of<T>(t);
                         for_each_run(t, [&](int64_t at, int64_t stride, int64_t count) {
                           for (int64_t i = 0; i < count; ++i)
                             to[at + i * stride] = encode<T>(*from++, cut);
                         });
                       }),
             t);
}

}  // namespace

bool& cuts_on_this_thread() {
  thread_local bool cuts = false;
  return cuts;
}

std::string to_string(aclDataType type) {
  switch (type) {
    case ACL_FLOAT: return "FLOAT";
    case ACL_FLOAT16: return "FLOAT16";
    case ACL_BF16: return "BFLOAT16";
    case ACL_DOUBLE: return "DOUBLE";
    case ACL_INT8: return "INT8";
    case ACL_UINT8: return "UINT8";
    case ACL_INT16: return "INT16";
    case ACL_UINT16: return "UINT16";
    case ACL_INT32: return "INT32";
    case ACL_UINT32: return "UINT32";
    case ACL_INT64: return "INT64";
    case ACL_UINT64: return "UINT64";
    case ACL_BOOL: return "BOOL";
    default: return "type " + std::to_string(static_cast<int>(type));
  }
}

std::string to_string(const Shape& shape) {
  std::string out = "[";
  for (size_t i = 0; i < shape.size(); ++i) out += (i ? ", " : "") + std::to_string(shape[i]);
  return out + "]";
}

size_t size_of(aclDataType type) {
  size_t size = 0;
  with_type(type, [&](auto t) { size = sizeof(t); });
  return size;
}

bool is_float(aclDataType type) {
  bool yes = false;
  with_type(type, [&](auto t) { yes = kIsFloatType<decltype(t)>; });
  return yes;
}

bool is_integer(aclDataType type) {
  return size_of(type) > 0 && !is_float(type) && type != ACL_BOOL;
}

float rounded(float value, aclDataType type) {
  float out = value;
  with_type(type, [&](auto t) { out = static_cast<float>(as_double(encode<decltype(t)>(value))); });
  return out;
}

float rounded_double(double value, aclDataType type) {
  float out = static_cast<float>(value);
  with_type(type, [&](auto t) { out = static_cast<float>(as_double(encode<decltype(t)>(value))); });
  return out;
}

int64_t element_count(const Shape& shape) {
  int64_t n = 1;
  for (const int64_t d : shape) n *= d;
  return n;
}

int64_t Tensor::elements() const { return element_count(shape); }

int64_t Tensor::dim(int i) const { return shape.at(static_cast<size_t>(i < 0 ? i + rank() : i)); }

int64_t Tensor::stride(int i) const {
  return strides.at(static_cast<size_t>(i < 0 ? i + rank() : i));
}

bool Tensor::contiguous() const {
  int64_t expected = 1;
  for (size_t i = shape.size(); i-- > 0;) {
    if (shape[i] != 1 && strides[i] != expected) return false;
    expected *= shape[i];
  }
  return true;
}

Tensor Tensor::transposed(int a, int b) const {
  Tensor out = *this;
  const auto i = static_cast<size_t>(a < 0 ? a + rank() : a);
  const auto j = static_cast<size_t>(b < 0 ? b + rank() : b);
  std::swap(out.shape.at(i), out.shape.at(j));
  std::swap(out.strides.at(i), out.strides.at(j));
  return out;
}

Tensor Tensor::select(int dimension, int64_t index) const {
  Tensor out = *this;
  const int i = dimension < 0 ? dimension + rank() : dimension;
  out.offset += index * stride(i);
  out.shape.erase(out.shape.begin() + i);
  out.strides.erase(out.strides.begin() + i);
  return out;
}

Tensor Tensor::narrow(int dimension, int64_t start, int64_t length) const {
  Tensor out = *this;
  const auto i = static_cast<size_t>(dimension < 0 ? dimension + rank() : dimension);
  out.offset += start * strides.at(i);
  out.shape[i] = length;
  return out;
}

std::optional<Tensor> Tensor::broadcast_to(const Shape& wider) const {
  if (wider.size() < shape.size()) return std::nullopt;
  Tensor out = *this;
  out.shape = wider;
  out.strides.assign(wider.size(), 0);
  const size_t added = wider.size() - shape.size();
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] == wider[added + i])
      out.strides[added + i] = strides[i];
    else if (shape[i] != 1)
      return std::nullopt;
  }
  return out;
}

std::optional<Shape> broadcast_shapes(const Shape& a, const Shape& b) {
  Shape out(std::max(a.size(), b.size()));
  for (size_t i = 0; i < out.size(); ++i) {
    const int64_t x = i < a.size() ? a[a.size() - 1 - i] : 1;
    const int64_t y = i < b.size() ? b[b.size() - 1 - i] : 1;
    if (x != y && x != 1 && y != 1) return std::nullopt;
    out[out.size() - 1 - i] = x == 1 ? y : x;
  }
  return out;
}

std::vector<float> load(const Tensor& t) {
  return read<float>(t, [](auto x) { return static_cast<float>(as_double(x)); });
}

std::vector<double> load_f64(const Tensor& t) {
  return read<double>(t, [](auto x) { return as_double(x); });
}

std::vector<int64_t> load_i64(const Tensor& t) {
  return read<int64_t>(t, [](auto x) { return as_int(x); });
}

void store(const Tensor& t, std::span<const float> values) { write(t, values); }
void store_f64(const Tensor& t, std::span<const double> values) { write(t, values); }
void store_i64(const Tensor& t, std::span<const int64_t> values) { write(t, values); }

Elements::Elements(const Tensor& t)
    : dtype_(t.dtype), first_(alias(t.data) + t.offset * static_cast<int64_t>(size_of(t.dtype))) {}

double Elements::get(int64_t at) const {
  double out = 0;
  with_type(dtype_, [&](auto type) {
    out = as_double(reinterpret_cast<const decltype(type)*>(first_)[at]);
  });
  return out;
}

int64_t Elements::get_i64(int64_t at) const {
  int64_t out = 0;
  with_type(dtype_,
            [&](auto type) { out = as_int(reinterpret_cast<const decltype(type)*>(first_)[at]); });
  return out;
}

void Elements::set(int64_t at, double value) const {
  with_type(dtype_, [&](auto type) {
    using T = decltype(type);
    reinterpret_cast<T*>(first_)[at] = encode<T>(value);
  });
}

std::vector<unsigned char> load_bits(const Tensor& t) {
  const size_t size = size_of(t.dtype);
  std::vector<unsigned char> out(static_cast<size_t>(t.elements()) * size);
  unsigned char* to = out.data();
  const unsigned char* from = alias(t.data);
  for_each_run(t, [&](int64_t at, int64_t stride, int64_t count) {
    for (int64_t i = 0; i < count; to += size, ++i)
      std::memcpy(to, from + (at + i * stride) * static_cast<int64_t>(size), size);
  });
  return out;
}

void store_bits(const Tensor& t, std::span<const unsigned char> bits) {
  const size_t size = size_of(t.dtype);
  if (bits.size() != static_cast<size_t>(t.elements()) * size)
    violation("an op stores " + std::to_string(bits.size()) + " bytes into " + to_string(t.shape));
  const unsigned char* from = bits.data();
  unsigned char* to = alias(t.data);
  for_each_run(t, [&](int64_t at, int64_t stride, int64_t count) {
    for (int64_t i = 0; i < count; from += size, ++i)
      std::memcpy(to + (at + i * stride) * static_cast<int64_t>(size), from, size);
  });
}

}  // namespace ascend_sim
