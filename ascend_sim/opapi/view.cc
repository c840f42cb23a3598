#include "view.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "runtime/memory.h"

namespace ascend_sim {
namespace {

uint32_t bits_of(float value) { return std::bit_cast<uint32_t>(value); }

template <class Element>
Element get(const std::byte* at) {
  Element e;
  std::memcpy(&e, at, sizeof(e));
  return e;
}

template <class Element>
void put(std::byte* at, Element e) {
  std::memcpy(at, &e, sizeof(e));
}

/// Towards zero, and the nearest bound beyond the type's range; NaN becomes 0.
template <class Integer>
Integer saturated(double value) {
  if (std::isnan(value)) return 0;
  const double truncated = std::trunc(value);
  if (truncated <= static_cast<double>(std::numeric_limits<Integer>::min()))
    return std::numeric_limits<Integer>::min();
  if (truncated >= static_cast<double>(std::numeric_limits<Integer>::max()))
    return std::numeric_limits<Integer>::max();
  return static_cast<Integer>(truncated);
}

template <class Element, class Number, class Convert>
void load_as(const std::byte* data, int64_t stride, int64_t n, Number* out, Convert convert) {
  const int64_t step = stride * static_cast<int64_t>(sizeof(Element));
  if (stride == 1) {
    for (int64_t i = 0; i < n; ++i)
      out[i] = convert(get<Element>(data + i * static_cast<int64_t>(sizeof(Element))));
    return;
  }
  for (int64_t i = 0; i < n; ++i) out[i] = convert(get<Element>(data + i * step));
}

template <class Element, class Number, class Convert>
void store_as(std::byte* data, int64_t stride, int64_t n, const Number* values, Convert convert) {
  const int64_t step = stride * static_cast<int64_t>(sizeof(Element));
  if (stride == 1) {
    for (int64_t i = 0; i < n; ++i)
      put<Element>(data + i * static_cast<int64_t>(sizeof(Element)), convert(values[i]));
    return;
  }
  for (int64_t i = 0; i < n; ++i) put<Element>(data + i * step, convert(values[i]));
}

template <class Number>
void load_any(aclDataType type, const std::byte* data, int64_t stride, int64_t n, Number* out) {
  const auto plain = [](auto e) { return static_cast<Number>(e); };
  switch (type) {
    case ACL_FLOAT: return load_as<float>(data, stride, n, out, plain);
    case ACL_DOUBLE: return load_as<double>(data, stride, n, out, plain);
    case ACL_BF16:
      return load_as<uint16_t>(data, stride, n, out, [](uint16_t e) {
        return static_cast<Number>(std::bit_cast<float>(static_cast<uint32_t>(e) << 16));
      });
    case ACL_FLOAT16:
      return load_as<uint16_t>(
          data, stride, n, out, [](uint16_t e) { return static_cast<Number>(f16_to_float(e)); });
    case ACL_INT8: return load_as<int8_t>(data, stride, n, out, plain);
    case ACL_UINT8: return load_as<uint8_t>(data, stride, n, out, plain);
    case ACL_INT16: return load_as<int16_t>(data, stride, n, out, plain);
    case ACL_INT32: return load_as<int32_t>(data, stride, n, out, plain);
    case ACL_INT64: return load_as<int64_t>(data, stride, n, out, plain);
    case ACL_UINT16: return load_as<uint16_t>(data, stride, n, out, plain);
    case ACL_UINT32: return load_as<uint32_t>(data, stride, n, out, plain);
    case ACL_UINT64: return load_as<uint64_t>(data, stride, n, out, plain);
    case ACL_BOOL:
      return load_as<uint8_t>(
          data, stride, n, out, [](uint8_t e) { return static_cast<Number>(e != 0); });
    case ACL_DT_UNDEFINED: break;  // no tensor of it passes the first phase
  }
}

template <class Number>
void store_any(aclDataType type, std::byte* data, int64_t stride, int64_t n, const Number* values) {
  const auto integer = [](auto zero) {
    using Integer = decltype(zero);
    return [](Number v) {
      if constexpr (std::is_same_v<Number, int64_t>)
        return static_cast<Integer>(v);  // wraps, as a narrowing cast of integers does
      else
        return saturated<Integer>(static_cast<double>(v));
    };
  };
  switch (type) {
    case ACL_FLOAT:
      return store_as<float>(data, stride, n, values, [](Number v) { return static_cast<float>(v); });
    case ACL_DOUBLE:
      return store_as<double>(
          data, stride, n, values, [](Number v) { return static_cast<double>(v); });
    case ACL_BF16:
      return store_as<uint16_t>(
          data, stride, n, values, [](Number v) { return float_to_bf16(static_cast<float>(v)); });
    case ACL_FLOAT16:
      return store_as<uint16_t>(
          data, stride, n, values, [](Number v) { return float_to_f16(static_cast<float>(v)); });
    case ACL_INT8: return store_as<int8_t>(data, stride, n, values, integer(int8_t{}));
    case ACL_UINT8: return store_as<uint8_t>(data, stride, n, values, integer(uint8_t{}));
    case ACL_INT16: return store_as<int16_t>(data, stride, n, values, integer(int16_t{}));
    case ACL_INT32: return store_as<int32_t>(data, stride, n, values, integer(int32_t{}));
    case ACL_INT64: return store_as<int64_t>(data, stride, n, values, integer(int64_t{}));
    case ACL_UINT16: return store_as<uint16_t>(data, stride, n, values, integer(uint16_t{}));
    case ACL_UINT32: return store_as<uint32_t>(data, stride, n, values, integer(uint32_t{}));
    case ACL_UINT64: return store_as<uint64_t>(data, stride, n, values, integer(uint64_t{}));
    case ACL_BOOL:
      return store_as<uint8_t>(
          data, stride, n, values, [](Number v) { return static_cast<uint8_t>(v != 0); });
    case ACL_DT_UNDEFINED: break;
  }
}

/// The same elements in the same order with as few dimensions as the strides allow.
View merged(const View& v) {
  View out{v.data, v.type, {}, {}};
  for (size_t i = 0; i < v.dims.size(); ++i) {
    if (v.dims[i] == 1) continue;
    if (!out.dims.empty() && out.strides.back() == v.strides[i] * v.dims[i]) {
      out.dims.back() *= v.dims[i];
      out.strides.back() = v.strides[i];
    } else {
      out.dims.push_back(v.dims[i]);
      out.strides.push_back(v.strides[i]);
    }
  }
  if (out.dims.empty()) {
    out.dims = {1};
    out.strides = {1};
  }
  return out;
}

/// Walks elements [first, first + n) of `v` run by run along the last dimension.
template <class Visit>
void for_each_run(const View& v, int64_t first, int64_t n, Visit visit) {
  const View m = merged(v);
  const int64_t inner = m.dims.back();
  const size_t outer = m.dims.size() - 1;
  Dims index(outer, 0);
  int64_t offset = 0;
  int64_t rest = first / inner;
  for (size_t d = outer; d-- > 0;) {
    index[d] = rest % m.dims[d];
    rest /= m.dims[d];
    offset += index[d] * m.strides[d];
  }
  int64_t column = first % inner;
  for (int64_t done = 0; done < n;) {
    const int64_t run = std::min(inner - column, n - done);
    visit(m.at(offset + column * m.strides.back()), m.strides.back(), done, run);
    done += run;
    column = 0;
    for (size_t d = outer; d-- > 0;) {
      offset += m.strides[d];
      if (++index[d] < m.dims[d]) break;
      offset -= index[d] * m.strides[d];
      index[d] = 0;
    }
  }
}

}  // namespace

Dims contiguous_strides(const Dims& dims) {
  Dims strides(dims.size());
  int64_t stride = 1;
  for (size_t i = dims.size(); i-- > 0;) {
    strides[i] = stride;
    stride *= dims[i];
  }
  return strides;
}

View view(const Tensor& t) {
  std::byte* first = nullptr;
  if (t.elements() > 0)
    first = reinterpret_cast<std::byte*>(alias(t.data)) +
            t.offset * static_cast<int64_t>(size_of(t.dtype));
  return {first, t.dtype, t.shape, t.strides};
}

bool View::contiguous() const {
  int64_t expected = 1;
  for (size_t i = dims.size(); i-- > 0;) {
    if (dims[i] != 1 && strides[i] != expected) return false;
    expected *= dims[i];
  }
  return true;
}

bool broadcasts(const Dims& from, const Dims& to) {
  if (from.size() > to.size()) return false;
  const size_t lead = to.size() - from.size();
  for (size_t i = 0; i < from.size(); ++i)
    if (from[i] != to[lead + i] && from[i] != 1) return false;
  return true;
}

View broadcast(const View& v, const Dims& dims) {
  View out{v.data, v.type, dims, Dims(dims.size(), 0)};
  const size_t lead = dims.size() - v.dims.size();
  for (size_t i = 0; i < v.dims.size(); ++i)
    out.strides[lead + i] = v.dims[i] == 1 ? 0 : v.strides[i];
  return out;
}

View transposed(const View& v, int64_t a, int64_t b) {
  View out = v;
  const auto x = static_cast<size_t>(a < 0 ? a + v.rank() : a);
  const auto y = static_cast<size_t>(b < 0 ? b + v.rank() : b);
  std::swap(out.dims[x], out.dims[y]);
  std::swap(out.strides[x], out.strides[y]);
  return out;
}

View permuted(const View& v, const Dims& order) {
  View out{v.data, v.type, {}, {}};
  for (int64_t d : order) {
    out.dims.push_back(v.size(d));
    out.strides.push_back(v.stride(d));
  }
  return out;
}

View sliced(const View& v, int64_t dim, int64_t begin, int64_t size, int64_t step) {
  View out = v;
  const auto d = static_cast<size_t>(dim < 0 ? dim + v.rank() : dim);
  out.data = v.at(begin * v.strides[d]);
  out.dims[d] = size;
  out.strides[d] *= step;
  return out;
}

View selected(const View& v, int64_t dim, int64_t index) {
  View out = sliced(v, dim, index, 1);
  const int64_t d = dim < 0 ? dim + v.rank() : dim;
  out.dims.erase(out.dims.begin() + d);
  out.strides.erase(out.strides.begin() + d);
  return out;
}

float bf16_to_float(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

uint16_t float_to_bf16(float value, Rounding rounding) {
  const uint32_t bits = bits_of(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  if (rounding == Rounding::kTruncate) return static_cast<uint16_t>(bits >> 16);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

float f16_to_float(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1fu;
  const uint32_t fraction = bits & 0x3ffu;
  if (exponent == 0x1fu) return std::bit_cast<float>(sign | 0x7f800000u | (fraction << 13));
  if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (fraction << 13));
  const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
  return std::bit_cast<float>(bits_of(magnitude) | sign);
}

uint16_t float_to_f16(float value) {
  const uint32_t bits = bits_of(value);
  const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // 65520 and more
  if (magnitude < 0x38800000u) {  // subnormal: adding 0.5 leaves the rounded fraction in the low bits
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (bits_of(shifted) - 0x3f000000u));
  }
  const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

void load_run(aclDataType type, const std::byte* data, int64_t stride, int64_t n, float* out) {
  if (type == ACL_FLOAT && stride == 1) {
    if (n > 0) std::memcpy(out, data, static_cast<size_t>(n) * sizeof(float));
    return;
  }
  load_any(type, data, stride, n, out);
}

void load_run(aclDataType type, const std::byte* data, int64_t stride, int64_t n, int64_t* out) {
  load_any(type, data, stride, n, out);
}

void load_run(aclDataType type, const std::byte* data, int64_t stride, int64_t n, double* out) {
  load_any(type, data, stride, n, out);
}

void store_run(aclDataType type,
           std::byte* data,
           int64_t stride,
           int64_t n,
           const float* values,
           Rounding rounding) {
  if (type == ACL_FLOAT && stride == 1) {
    if (n > 0) std::memcpy(data, values, static_cast<size_t>(n) * sizeof(float));
    return;
  }
  if (type == ACL_BF16 && rounding == Rounding::kTruncate) {
    store_as<uint16_t>(data, stride, n, values, [](float v) {
      return float_to_bf16(v, Rounding::kTruncate);
    });
    return;
  }
  store_any(type, data, stride, n, values);
}

void store_run(aclDataType type, std::byte* data, int64_t stride, int64_t n, const int64_t* values) {
  store_any(type, data, stride, n, values);
}

void store_run(aclDataType type, std::byte* data, int64_t stride, int64_t n, const double* values) {
  store_any(type, data, stride, n, values);
}

template <class Number>
void read(const View& v, int64_t first, int64_t n, Number* out) {
  for_each_run(v, first, n, [&](std::byte* at, int64_t stride, int64_t done, int64_t run) {
    load_run(v.type, at, stride, run, out + done);
  });
}

template <class Number>
void write(const View& v, int64_t first, int64_t n, const Number* values) {
  for_each_run(v, first, n, [&](std::byte* at, int64_t stride, int64_t done, int64_t run) {
    store_run(v.type, at, stride, run, values + done);
  });
}

void write(const View& v, int64_t first, int64_t n, const float* values, Rounding rounding) {
  for_each_run(v, first, n, [&](std::byte* at, int64_t stride, int64_t done, int64_t run) {
    store_run(v.type, at, stride, run, values + done, rounding);
  });
}

template void read(const View&, int64_t, int64_t, float*);
template void read(const View&, int64_t, int64_t, double*);
template void read(const View&, int64_t, int64_t, int64_t*);
template void write(const View&, int64_t, int64_t, const float*);
template void write(const View&, int64_t, int64_t, const double*);
template void write(const View&, int64_t, int64_t, const int64_t*);

std::vector<float> floats(const View& v) {
  std::vector<float> out(static_cast<size_t>(v.count()));
  read(v, 0, v.count(), out.data());
  return out;
}

std::vector<int64_t> integers(const View& v) {
  std::vector<int64_t> out(static_cast<size_t>(v.count()));
  read(v, 0, v.count(), out.data());
  return out;
}

double scalar(const View& v) {
  double value = 0;
  read(v, 0, 1, &value);
  return value;
}

void for_each_line(const View& v,
                   int64_t dim,
                   const std::function<void(int64_t line, int64_t offset)>& visit) {
  View others = v;
  const int64_t d = dim < 0 ? dim + v.rank() : dim;
  others.dims.erase(others.dims.begin() + d);
  others.strides.erase(others.strides.begin() + d);
  const int64_t lines = others.count();
  Dims index(others.dims.size(), 0);
  int64_t offset = 0;
  for (int64_t line = 0; line < lines; ++line) {
    visit(line, offset);
    for (size_t i = others.dims.size(); i-- > 0;) {
      offset += others.strides[i];
      if (++index[i] < others.dims[i]) break;
      offset -= index[i] * others.strides[i];
      index[i] = 0;
    }
  }
}

}  // namespace ascend_sim
