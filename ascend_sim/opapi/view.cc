#include "opapi/view.h"

#include <algorithm>
#include <cstring>

#include "nnopbase/numbers.h"
#include "runtime/memory.h"

namespace ascend_sim {
namespace {

template <class Element>
Element get(const std::byte* at) {
  Element e;
  std::memcpy(&e, at, sizeof(e));
  return e;
}

template <class Number, class Element>
Number as_number(Element e) {
  if constexpr (std::is_same_v<Number, int64_t>)
    return as_int(e);
  else
    return static_cast<Number>(as_double(e));
}

template <class Number>
void load_any(aclDataType type, const std::byte* data, int64_t stride, int64_t n, Number* out) {
  with_type(type, [&](auto sample) {
    using Element = decltype(sample);
    constexpr auto kSize = static_cast<int64_t>(sizeof(Element));
    if (stride == 1)  // on its own, so that it is vectorised
      for (int64_t i = 0; i < n; ++i) out[i] = as_number<Number>(get<Element>(data + i * kSize));
    else
      for (int64_t i = 0; i < n; ++i)
        out[i] = as_number<Number>(get<Element>(data + i * stride * kSize));
  });
}

template <class Number>
void store_any(
    aclDataType type, std::byte* data, int64_t stride, int64_t n, const Number* values, bool cut) {
  with_type(type, [&](auto sample) {
    using Element = decltype(sample);
    constexpr auto kSize = static_cast<int64_t>(sizeof(Element));
    const auto put = [&](int64_t i, std::byte* at) {
      const Element e = encode<Element>(values[i], cut);
      std::memcpy(at, &e, sizeof(e));
    };
    if (stride == 1)
      for (int64_t i = 0; i < n; ++i) put(i, data + i * kSize);
    else
      for (int64_t i = 0; i < n; ++i) put(i, data + i * stride * kSize);
  });
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

float as_half(float value) { return decode(encode_half(value, false)); }

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
  const bool mutant = cuts_on_this_thread();
  if (type == ACL_FLOAT && stride == 1 && !mutant) {
    if (n > 0) std::memcpy(data, values, static_cast<size_t>(n) * sizeof(float));
    return;
  }
  const bool cut = mutant || (rounding == Rounding::kTruncate && type == ACL_BF16);
  store_any(type, data, stride, n, values, cut);
}

void store_run(
    aclDataType type, std::byte* data, int64_t stride, int64_t n, const int64_t* values) {
  store_any(type, data, stride, n, values, cuts_on_this_thread());
}

void store_run(aclDataType type, std::byte* data, int64_t stride, int64_t n, const double* values) {
  store_any(type, data, stride, n, values, cuts_on_this_thread());
}

template <class Number>
void read(const View& v, int64_t first, int64_t n, Number* out) {
  if (v.contiguous()) return load_run(v.type, v.at(first), 1, n, out);
  for_each_run(v, first, n, [&](std::byte* at, int64_t stride, int64_t done, int64_t run) {
    load_run(v.type, at, stride, run, out + done);
  });
}

template <class Number>
void write(const View& v, int64_t first, int64_t n, const Number* values) {
  if (v.contiguous()) return store_run(v.type, v.at(first), 1, n, values);
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
