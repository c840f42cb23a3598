// Ops that move elements and change types: copies, casts, slices, permutations, concatenation.
#include <cmath>
#include <cstring>

#include "nnopbase/numbers.h"
#include "opapi/op_kit.h"

using namespace ascend_sim;

namespace {

/// n elements of `size` bytes, `to_step` and `from_step` elements apart.
void copy_run(std::byte* to,
              int64_t to_step,
              const std::byte* from,
              int64_t from_step,
              int64_t n,
              size_t size) {
  if (to_step == 1 && from_step == 1) {
    std::memmove(to, from, static_cast<size_t>(n) * size);
    return;
  }
  const auto each = [&](auto element) {
    constexpr auto kSize = static_cast<int64_t>(sizeof(element));
    for (int64_t i = 0; i < n; ++i) {
      std::memcpy(&element, from + i * from_step * kSize, sizeof(element));
      std::memcpy(to + i * to_step * kSize, &element, sizeof(element));
    }
  };
  if (size == 1) return each(uint8_t{});
  if (size == 2) return each(uint16_t{});
  if (size == 4) return each(uint32_t{});
  each(uint64_t{});
}

/// The bits of all elements, same shapes and types.
void copy_bits(const View& to, const View& from) {
  const size_t size = size_of(to.type);
  if (to.count() == 0) return;
  if (to.rank() == 0 || (to.contiguous() && from.contiguous()))
    return copy_run(to.data, 1, from.data, 1, to.count(), size);
  const int64_t n = to.size(-1), lines = to.count() / n;
  const int64_t share = std::max<int64_t>(1, 65536 / n);
  in_parallel((lines + share - 1) / share, [&](int64_t part) {
    for (int64_t line = part * share; line < std::min(lines, (part + 1) * share); ++line) {
      int64_t rest = line, to_at = 0, from_at = 0;
      for (int64_t d = to.rank() - 1; d-- > 0;) {
        to_at += rest % to.size(d) * to.stride(d);
        from_at += rest % to.size(d) * from.stride(d);
        rest /= to.size(d);
      }
      copy_run(to.at(to_at), to.stride(-1), from.at(from_at), from.stride(-1), n, size);
    }
  });
}

/// to = from, elementwise, same shapes. Between equal types the bits are copied.
void copy(const View& to, const View& from, Rounding rounding = Rounding::kNearestEven) {
  if (to.type == from.type && !cuts_on_this_thread()) return copy_bits(to, from);
  in_pieces(to.count(), [&](int64_t first, int64_t n) {
    if (!is_float(from.type)) {
      int64_t values[kPiece];
      read(from, first, n, values);
      write(to, first, n, values);
    } else if (from.type == ACL_DOUBLE || to.type == ACL_DOUBLE || !is_float(to.type)) {
      double values[kPiece];
      read(from, first, n, values);
      write(to, first, n, values);
    } else {
      float values[kPiece];
      read(from, first, n, values);
      write(to, first, n, values, rounding);
    }
  });
}

void fill(const View& to, double value) {
  if (to.count() == 0) return;
  std::vector<double> values(static_cast<size_t>(std::min(to.count(), kPiece)), value);
  if (!to.contiguous()) {
    in_pieces(to.count(), [&](int64_t first, int64_t n) { write(to, first, n, values.data()); });
    return;
  }
  // One piece is rounded, the others are copies of it.
  const auto size = static_cast<int64_t>(size_of(to.type));
  write(to, 0, std::min(to.count(), kPiece), values.data());
  for (int64_t i = kPiece; i < to.count(); i += kPiece)
    std::memcpy(to.at(i), to.data, static_cast<size_t>(std::min(kPiece, to.count() - i) * size));
}

/// Whether v is a dense tensor with its dimensions in another order.
bool is_turned(const View& v) {
  if (v.contiguous()) return false;
  std::vector<std::pair<int64_t, int64_t>> by_stride;
  for (size_t i = 0; i < v.dims.size(); ++i)
    if (v.dims[i] != 1) by_stride.emplace_back(v.strides[i], v.dims[i]);
  std::sort(by_stride.begin(), by_stride.end());
  int64_t expected = 1;
  for (const auto& [stride, size] : by_stride) {
    if (stride != expected) return false;
    expected *= size;
  }
  return true;
}

}  // namespace

ASCEND_DEFECT(cast_truncates, "Cast", "float to bfloat16 drops the low bits instead of rounding")

ASCEND_OP(Cast, const aclTensor* self, aclDataType dtype, aclTensor* out) {
  return plan("Cast", workspace_size, executor, [&](Plan& op) {
    const Tensor x = op.input("self", self);
    const Tensor y = op.output("out", out);
    for (const Tensor* t : {&x, &y})
      if (t->dtype != ACL_DOUBLE) require_number(op, "self, out", *t);
    op.require(y.dtype == dtype, "out is not of type dtype");
    op.require_shape("out", y, x.shape);
    op.launch([=](Launch&) {
      copy(view(y),
           view(x),
           defect("cast_truncates") ? Rounding::kTruncate : Rounding::kNearestEven);
    });
  });
}

ASCEND_DEFECT(copy_reads_transposed_as_contiguous,
              "InplaceCopy",
              "a transposed source is read as if it lay in order")

ASCEND_OP(InplaceCopy, aclTensor* self_ref, const aclTensor* src) {
  return plan("InplaceCopy", workspace_size, executor, [&](Plan& op) {
    const Tensor y = op.inout("selfRef", self_ref);
    const Tensor x = op.input("src", src);
    require_number(op, "selfRef", y);
    require_number(op, "src", x);
    op.require(x.broadcast_to(y.shape).has_value(), "src does not broadcast to selfRef");
    op.launch([=](Launch&) {
      View from = view(x);
      if (defect("copy_reads_transposed_as_contiguous") && is_turned(from))
        from.strides = contiguous_strides(from.dims);
      copy(view(y), broadcast(from, y.shape));
    });
  });
}

ASCEND_OP(InplaceFillScalar, aclTensor* self_ref, const aclScalar* value) {
  return plan("InplaceFillScalar", workspace_size, executor, [&](Plan& op) {
    const Tensor y = op.output("selfRef", self_ref);
    require_number(op, "selfRef", y);
    const double v = op.scalar("value", value);
    op.launch([=](Launch&) { fill(view(y), v); });
  });
}

ASCEND_OP(
    Arange, const aclScalar* start, const aclScalar* end, const aclScalar* step, aclTensor* out) {
  return plan("Arange", workspace_size, executor, [&](Plan& op) {
    const double from = op.scalar("start", start), to = op.scalar("end", end),
                 by = op.scalar("step", step);
    const Tensor y = op.output("out", out);
    require_number(op, "out", y);
    op.require(by != 0 && (to - from) / by >= 0, "step does not lead from start to end");
    const auto n = static_cast<int64_t>(std::ceil((to - from) / by));
    op.require_shape("out", y, {n});
    op.launch([=](Launch&) {
      in_pieces(n, [&](int64_t first, int64_t count) {
        double values[kPiece];
        for (int64_t i = 0; i < count; ++i) values[i] = from + static_cast<double>(first + i) * by;
        write(view(y), first, count, values);
      });
    });
  });
}

ASCEND_OP(Slice,
          const aclTensor* self,
          int64_t dim,
          int64_t start,
          int64_t end,
          int64_t step,
          aclTensor* out) {
  return plan("Slice", workspace_size, executor, [&](Plan& op) {
    const Tensor x = op.input("self", self);
    const Tensor y = op.output("out", out);
    const int d = op.axis(dim, x.rank());
    op.require(step > 0, "step must be positive");
    op.require_same_type("self", x, "out", y);
    const int64_t size = x.dim(d);
    const auto bounded = [size](int64_t i) {
      return std::clamp<int64_t>(i < 0 ? i + size : i, 0, size);
    };
    const int64_t first = bounded(start), last = std::max(first, bounded(end));
    Shape shape = x.shape;
    shape[static_cast<size_t>(d)] = (last - first + step - 1) / step;
    op.require_shape("out", y, shape);
    op.launch([=](Launch&) { copy(view(y), sliced(view(x), d, first, y.dim(d), step)); });
  });
}

ASCEND_OP(Permute, const aclTensor* self, const aclIntArray* dims, aclTensor* out) {
  return plan("Permute", workspace_size, executor, [&](Plan& op) {
    const Tensor x = op.input("self", self);
    const Tensor y = op.output("out", out);
    op.require_same_type("self", x, "out", y);
    Shape order = op.ints("dims", dims), shape;
    op.require(static_cast<int>(order.size()) == x.rank(), "dims has not the rank of self");
    std::vector<bool> seen(order.size(), false);
    for (int64_t& d : order) {
      d = op.axis(d, x.rank());
      op.require(!seen[static_cast<size_t>(d)], "dims names a dimension twice");
      seen[static_cast<size_t>(d)] = true;
      shape.push_back(x.dim(static_cast<int>(d)));
    }
    op.require_shape("out", y, shape);
    op.launch([=](Launch&) { copy(view(y), permuted(view(x), order)); });
  });
}

ASCEND_OP(Repeat, const aclTensor* self, const aclIntArray* repeats, aclTensor* out) {
  return plan("Repeat", workspace_size, executor, [&](Plan& op) {
    const Tensor x = op.input("self", self);
    const Tensor y = op.output("out", out);
    op.require_same_type("self", x, "out", y);
    const Shape times = op.ints("repeats", repeats);
    op.require(times.size() >= x.shape.size(), "repeats has fewer entries than self dimensions");
    Shape wide(times.size() - x.shape.size(), 1);
    wide.insert(wide.end(), x.shape.begin(), x.shape.end());
    Shape shape = wide;
    for (size_t i = 0; i < times.size(); ++i) {
      op.require(times[i] >= 0, "repeats must not be negative");
      shape[i] *= times[i];
    }
    op.require_shape("out", y, shape);
    op.launch([=](Launch&) {
      // Each dimension as (repeat, size): a view of the source that repeats by strides of 0.
      const View from = view(x), to = view(y);
      View a{from.data, from.type, {}, {}}, b{to.data, to.type, {}, {}};
      const size_t lead = times.size() - x.shape.size();
      for (size_t i = 0; i < times.size(); ++i) {
        const int64_t stride = i < lead ? 0 : from.strides[i - lead];
        a.dims.insert(a.dims.end(), {times[i], wide[i]});
        a.strides.insert(a.strides.end(), {0, stride});
        b.dims.insert(b.dims.end(), {times[i], wide[i]});
        b.strides.insert(b.strides.end(), {to.strides[i] * wide[i], to.strides[i]});
      }
      copy(b, a);
    });
  });
}

ASCEND_DEFECT(cat_order, "Cat", "puts the last tensor first")

ASCEND_OP(Cat, const aclTensorList* tensors, int64_t dim, aclTensor* out) {
  return plan("Cat", workspace_size, executor, [&](Plan& op) {
    const std::vector<Tensor> parts = op.inputs("tensors", tensors);
    const Tensor y = op.output("out", out);
    op.require(!parts.empty(), "tensors is empty");
    const int d = op.axis(dim, y.rank());
    Shape shape = parts[0].shape;
    op.require(static_cast<int>(shape.size()) == y.rank(), "out has not the rank of the tensors");
    int64_t size = 0;
    for (const Tensor& t : parts) {
      op.require_same_type("tensors", t, "out", y);
      shape[static_cast<size_t>(d)] = t.rank() == y.rank() ? t.dim(d) : -1;
      op.require(t.shape == shape, "the tensors differ beside dimension dim");
      size += t.dim(d);
    }
    shape[static_cast<size_t>(d)] = size;
    op.require_shape("out", y, shape);
    op.launch([=](Launch&) {
      std::vector<Tensor> order = parts;
      if (defect("cat_order")) std::rotate(order.begin(), order.end() - 1, order.end());
      int64_t at = 0;
      for (const Tensor& t : order) {
        copy(view(y.narrow(d, at, t.dim(d))), view(t));
        at += t.dim(d);
      }
    });
  });
}

ASCEND_OP(SplitWithSize,
          const aclTensor* self,
          const aclIntArray* split_size,
          int64_t dim,
          aclTensorList* out) {
  return plan("SplitWithSize", workspace_size, executor, [&](Plan& op) {
    const Tensor x = op.input("self", self);
    const Shape sizes = op.ints("splitSize", split_size);
    const std::vector<Tensor> parts = op.outputs("out", out);
    const int d = op.axis(dim, x.rank());
    op.require(parts.size() == sizes.size(), "out has not as many tensors as splitSize entries");
    int64_t total = 0;
    for (size_t i = 0; i < parts.size(); ++i) {
      Shape shape = x.shape;
      shape[static_cast<size_t>(d)] = sizes[i];
      op.require(sizes[i] >= 0, "splitSize must not be negative");
      op.require_shape("out", parts[i], shape);
      op.require_same_type("self", x, "out", parts[i]);
      total += sizes[i];
    }
    op.require(total == x.dim(d), "splitSize does not add up to dimension dim");
    op.launch([=](Launch&) {
      int64_t at = 0;
      for (const Tensor& t : parts) {
        copy(view(t), view(x.narrow(d, at, t.dim(d))));
        at += t.dim(d);
      }
    });
  });
}

ASCEND_DEFECT(triu_off_by_one, "Triu", "keeps one diagonal more")

ASCEND_OP(Triu, const aclTensor* self, int64_t diagonal, aclTensor* out) {
  return plan("Triu", workspace_size, executor, [&](Plan& op) {
    const Tensor x = op.input("self", self);
    const Tensor y = op.output("out", out);
    require_number(op, "self", x);
    op.require(x.rank() >= 2, "self must have two dimensions or more");
    op.require_same_type("self", x, "out", y);
    op.require_shape("out", y, x.shape);
    op.launch([=](Launch&) {
      const View from = view(x), to = view(y);
      const int64_t more = defect("triu_off_by_one") ? 1 : 0;
      const int64_t rows = x.dim(-2), columns = x.dim(-1);
      const int64_t lines = columns == 0 ? 0 : from.count() / columns;
      in_parallel((lines + 255) / 256, [&](int64_t part) {
        std::vector<double> line(static_cast<size_t>(columns));
        for (int64_t i = part * 256; i < std::min(lines, (part + 1) * 256); ++i) {
          const int64_t zeros = std::clamp<int64_t>(i % rows + diagonal - more, 0, columns);
          if (from.contiguous() && to.contiguous()) {  // masks are large and made often
            const auto size = static_cast<int64_t>(size_of(to.type));
            std::byte* row = to.at(i * columns);
            std::memmove(row, from.at(i * columns), static_cast<size_t>(columns * size));
            std::memset(row, 0, static_cast<size_t>(zeros * size));
            continue;
          }
          read(from, i * columns, columns, line.data());
          std::fill(line.begin(), line.begin() + zeros, 0.0);
          write(to, i * columns, columns, line.data());
        }
      });
    });
  });
}
