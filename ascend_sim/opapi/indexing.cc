// Ops that look up or scatter by indices. An index out of range ends the task in a vector core
// exception, where a real chip may also read what lies there.
#include "opapi/op_kit.h"
#include "opapi/sums.h"

using namespace ascend_sim;

namespace {

std::vector<int64_t> checked_indices(const Launch& at,
                                     const Tensor& index,
                                     int64_t size,
                                     bool negative_too = false) {
  std::vector<int64_t> all = integers(view(index));
  for (int64_t& i : all) {
    if (negative_too && i < 0) i += size;
    if (i < 0 || i >= size)
      at.fault(code::kVectorCoreException,
               "index " + std::to_string(i) + " of " + std::to_string(size));
  }
  return all;
}

void copy_row(const View& to, const View& from) {
  const int64_t n = to.count();
  for (int64_t first = 0; first < n; first += kPiece) {
    const int64_t part = std::min(kPiece, n - first);
    if (is_float(to.type)) {
      double values[kPiece];
      read(from, first, part, values);
      write(to, first, part, values);
    } else {
      int64_t values[kPiece];
      read(from, first, part, values);
      write(to, first, part, values);
    }
  }
}

/// out[..., index..., ...] = self[..., i, ...]: index takes the place of dimension d.
void take(const View& out, const View& self, int64_t d, const std::vector<int64_t>& index) {
  // out seen as [before, index, after]: the dimensions of index are one after merging, as out is
  // written in order.
  int64_t before = 1, after = 1;
  for (int64_t i = 0; i < d; ++i) before *= self.size(i);
  for (int64_t i = d + 1; i < self.rank(); ++i) after *= self.size(i);
  const auto n = static_cast<int64_t>(index.size());
  in_parallel((before * n + 63) / 64, [&](int64_t part) {
    std::vector<double> values(static_cast<size_t>(after));
    std::vector<int64_t> whole(static_cast<size_t>(after));
    for (int64_t r = part * 64; r < std::min(before * n, (part + 1) * 64); ++r) {
      const int64_t from = ((r / n) * self.size(d) + index[static_cast<size_t>(r % n)]) * after;
      if (is_float(self.type)) {
        read(self, from, after, values.data());
        write(out, r * after, after, values.data());
      } else {
        read(self, from, after, whole.data());
        write(out, r * after, after, whole.data());
      }
    }
  });
}

Shape looked_up(const Tensor& self, int d, const Tensor& index) {
  Shape shape(self.shape.begin(), self.shape.begin() + d);
  shape.insert(shape.end(), index.shape.begin(), index.shape.end());
  shape.insert(shape.end(), self.shape.begin() + d + 1, self.shape.end());
  return shape;
}

}  // namespace

ASCEND_DEFECT(embedding_clamps_rows,
              "Embedding",
              "the last quarter of the rows is read as its first")

ASCEND_OP(Embedding, const aclTensor* weight, const aclTensor* indices, const aclTensor* out) {
  return plan("Embedding", workspace_size, executor, [&](Plan& op) {
    const Tensor w = op.input("weight", weight), index = op.input("indices", indices);
    const Tensor y = op.output("out", out);
    require_number(op, "weight", w);
    op.require_rank("weight", w, 2, 2);
    require_index(op, "indices", index);
    op.require_same_type("weight", w, "out", y);
    Shape shape = index.shape;
    shape.push_back(w.dim(1));
    op.require_shape("out", y, shape);
    op.launch([=](Launch& at) {
      std::vector<int64_t> rows = checked_indices(at, index, w.dim(0));
      if (defect("embedding_clamps_rows")) {
        for (int64_t& r : rows) r = std::min(r, w.dim(0) * 3 / 4);
      }
      take(view(y), view(w), 0, rows);
    });
  });
}

ASCEND_DEFECT(embedding_grad_overwrites,
              "EmbeddingDenseBackward",
              "a repeated index keeps its last gradient only")

ASCEND_OP(EmbeddingDenseBackward,
          const aclTensor* grad_in,
          const aclTensor* indices,
          uint64_t num_weights,
          uint64_t padding_idx,
          bool scale_grad_by_freq,
          const aclTensor* out) {
  return plan("EmbeddingDenseBackward", workspace_size, executor, [&](Plan& op) {
    const Tensor grad = op.input("grad", grad_in), index = op.input("indices", indices);
    const Tensor y = op.output("out", out);
    require_training_chip(op);
    require_float(op, "grad", grad);
    require_index(op, "indices", index);
    op.require_same_type("grad", grad, "out", y);
    Shape shape = index.shape;
    op.require(grad.rank() >= 2 && grad.rank() <= 8, "grad must have 2 to 8 dimensions");
    shape.push_back(grad.dim(-1));
    op.require_shape("grad", grad, shape);
    op.require_shape("out", y, {static_cast<int64_t>(num_weights), grad.dim(-1)});
    op.workspace(1024 + static_cast<uint64_t>(index.elements()) * 8);
    op.launch([=](Launch& at) {
      const int64_t rows = y.dim(0), hidden = y.dim(1);
      const std::vector<int64_t> of = checked_indices(at, index, rows);
      const auto tokens = static_cast<int64_t>(of.size());
      const int64_t first = Order{at.order(tokens)}.first(tokens);
      const bool overwrites = defect("embedding_grad_overwrites");
      // Tokens of each row, in the order in which they are added.
      std::vector<std::vector<int64_t>> of_row(static_cast<size_t>(rows));
      for (int64_t i = 0; i < tokens; ++i) {
        const int64_t token = (first + i) % tokens;
        const int64_t row = of[static_cast<size_t>(token)];
        if (static_cast<uint64_t>(row) != padding_idx)  // a negative paddingIdx is no row
          of_row[static_cast<size_t>(row)].push_back(token);
      }
      in_parallel((rows + 255) / 256, [&](int64_t part) {
        std::vector<float> total(static_cast<size_t>(hidden)), one(static_cast<size_t>(hidden));
        for (int64_t r = part * 256; r < std::min(rows, (part + 1) * 256); ++r) {
          std::fill(total.begin(), total.end(), 0.0f);
          const auto& mine = of_row[static_cast<size_t>(r)];
          for (int64_t token : mine) {
            read(view(grad), token * hidden, hidden, one.data());
            for (size_t i = 0; i < one.size(); ++i)
              total[i] = overwrites ? one[i] : total[i] + one[i];
          }
          if (scale_grad_by_freq && mine.size() > 1)
            for (float& v : total) v /= static_cast<float>(mine.size());
          write(view(y), r * hidden, hidden, total.data());
        }
      });
    });
  });
}

ASCEND_OP(GatherV2, const aclTensor* self, int64_t dim, const aclTensor* index_in, aclTensor* out) {
  return plan("GatherV2", workspace_size, executor, [&](Plan& op) {
    const Tensor x = op.input("self", self), index = op.input("index", index_in);
    const Tensor y = op.output("out", out);
    require_number(op, "self", x);
    require_index(op, "index", index);
    const int d = op.axis(dim, x.rank());
    op.require_same_type("self", x, "out", y);
    op.require_shape("out", y, looked_up(x, d, index));
    op.launch(
        [=](Launch& at) { take(view(y), view(x), d, checked_indices(at, index, x.dim(d), true)); });
  });
}

ASCEND_DEFECT(index_select_off_by_one, "IndexSelect", "takes the row before, but for row 0")

ASCEND_OP(
    IndexSelect, const aclTensor* self, int64_t dim, const aclTensor* index_in, aclTensor* out) {
  return plan("IndexSelect", workspace_size, executor, [&](Plan& op) {
    const Tensor x = op.input("self", self), index = op.input("index", index_in);
    const Tensor y = op.output("out", out);
    require_number(op, "self", x);
    require_index(op, "index", index);
    op.require_rank("index", index, 0, 1);
    const int d = op.axis(dim, x.rank());
    op.require_same_type("self", x, "out", y);
    Shape shape = x.shape;
    shape[static_cast<size_t>(d)] = index.elements();
    op.require_shape("out", y, shape);
    op.launch([=](Launch& at) {
      std::vector<int64_t> rows = checked_indices(at, index, x.dim(d));
      if (defect("index_select_off_by_one"))
        for (int64_t& r : rows) r = std::max<int64_t>(r - 1, 0);
      take(view(y), view(x), d, rows);
    });
  });
}

ASCEND_DEFECT(gather_off_by_one, "Gather", "takes the element before, but for element 0")

// out[i][j][k] = self[i][index[i][j][k]][k] for dim 1; index may be smaller than self elsewhere.
ASCEND_OP(Gather, const aclTensor* self, int64_t dim, const aclTensor* index_in, aclTensor* out) {
  return plan("Gather", workspace_size, executor, [&](Plan& op) {
    require_training_chip(op);
    const Tensor x = op.input("self", self), index = op.input("index", index_in);
    const Tensor y = op.output("out", out);
    require_number(op, "self", x);
    require_index(op, "index", index);
    const int d = op.axis(dim, x.rank());
    op.require(index.rank() == x.rank(), "index has not the rank of self");
    for (int i = 0; i < x.rank(); ++i)
      op.require(i == d || index.dim(i) <= x.dim(i), "index is larger than self");
    op.require_same_type("self", x, "out", y);
    op.require_shape("out", y, index.shape);
    op.launch([=](Launch& at) {
      std::vector<int64_t> picks = checked_indices(at, index, x.dim(d));
      if (defect("gather_off_by_one"))
        for (int64_t& p : picks) p = std::max<int64_t>(p - 1, 0);
      const View from = view(x), to = view(y);
      // Walk index in order: positions of the other dimensions follow from the linear number.
      Dims at_index(index.shape.size(), 0);
      for (size_t e = 0; e < picks.size(); ++e) {
        int64_t source = 0, target = 0;
        for (size_t i = 0; i < at_index.size(); ++i) {
          const int64_t here = static_cast<int>(i) == d ? picks[e] : at_index[i];
          source += here * from.strides[i];
          target += at_index[i] * to.strides[i];
        }
        copy_row({to.at(target), to.type, {1}, {1}}, {from.at(source), from.type, {1}, {1}});
        for (size_t i = at_index.size(); i-- > 0;) {
          if (++at_index[i] < index.shape[i]) break;
          at_index[i] = 0;
        }
      }
    });
  });
}

ASCEND_DEFECT(index_add_overwrites, "IndexAdd", "a repeated index keeps its last source only")

ASCEND_OP(IndexAdd,
          const aclTensor* self,
          int64_t dim,
          const aclTensor* index_in,
          const aclTensor* source_in,
          const aclScalar* alpha,
          aclTensor* out) {
  return plan("IndexAdd", workspace_size, executor, [&](Plan& op) {
    const Tensor x = op.input("self", self), index = op.input("index", index_in),
                 source = op.input("source", source_in);
    const Tensor y = op.output("out", out);
    require_number(op, "self", x);
    require_index(op, "index", index);
    op.require_rank("index", index, 0, 1);
    op.require_same_type("self", x, "source", source);
    op.require_same_type("self", x, "out", y);
    op.require_shape("out", y, x.shape);
    const int d = op.axis(dim, x.rank());
    Shape shape = x.shape;
    shape[static_cast<size_t>(d)] = index.elements();
    op.require_shape("source", source, shape);
    const auto scale = static_cast<float>(op.scalar("alpha", alpha));
    op.launch([=](Launch& at) {
      const std::vector<int64_t> rows = checked_indices(at, index, x.dim(d));
      const auto n = static_cast<int64_t>(rows.size());
      const int64_t first = Order{at.order(n)}.first(n);
      const bool overwrites = defect("index_add_overwrites");
      // Sums are held in float32 and rounded once.
      std::vector<float> total = floats(view(x));
      const std::vector<float> base = total, add = floats(view(source));
      int64_t after = 1, before = 1;
      for (int i = 0; i < d; ++i) before *= x.dim(i);
      for (int i = d + 1; i < x.rank(); ++i) after *= x.dim(i);
      for (int64_t b = 0; b < before; ++b)
        for (int64_t i = 0; i < n; ++i) {
          const int64_t r = (first + i) % n;
          const int64_t to = (b * x.dim(d) + rows[static_cast<size_t>(r)]) * after;
          const int64_t from = (b * n + r) * after;
          for (int64_t j = 0; j < after; ++j) {
            const auto t = static_cast<size_t>(to + j);
            total[t] =
                (overwrites ? base[t] : total[t]) + scale * add[static_cast<size_t>(from + j)];
          }
        }
      write(view(y), 0, y.elements(), total.data());
    });
  });
}

// out = self with out[index[i][j]][j] += src[i][j] for dim 0.
ASCEND_OP(ScatterAdd,
          const aclTensor* self,
          int64_t dim,
          const aclTensor* index_in,
          const aclTensor* src_in,
          aclTensor* out) {
  return plan("ScatterAdd", workspace_size, executor, [&](Plan& op) {
    const Tensor x = op.input("self", self), index = op.input("index", index_in),
                 src = op.input("src", src_in);
    const Tensor y = op.output("out", out);
    require_number(op, "self", x);
    require_index(op, "index", index);
    op.require_same_type("self", x, "src", src);
    op.require_same_type("self", x, "out", y);
    op.require_shape("out", y, x.shape);
    const int d = op.axis(dim, x.rank());
    op.require(index.rank() == x.rank() && src.rank() == x.rank(),
               "index and src have not the rank of self");
    for (int i = 0; i < x.rank(); ++i)
      op.require(index.dim(i) <= src.dim(i) && (i == d || index.dim(i) <= x.dim(i)),
                 "index is larger than src or self");
    op.launch([=](Launch& at) {
      const std::vector<int64_t> picks = checked_indices(at, index, x.dim(d));
      const auto n = static_cast<int64_t>(picks.size());
      const int64_t first = Order{at.order(n)}.first(n);
      std::vector<float> total = floats(view(x));
      const std::vector<float> add = floats(view(src));
      const Dims to_strides = contiguous_strides(x.shape),
                 from_strides = contiguous_strides(src.shape);
      const Dims index_strides = contiguous_strides(index.shape);
      for (int64_t i = 0; i < n; ++i) {
        const int64_t e = (first + i) % n;
        int64_t to = 0, from = 0;
        for (size_t k = 0; k < index_strides.size(); ++k) {
          const int64_t here = e / index_strides[k] % index.shape[k];
          from += here * from_strides[k];
          to += (static_cast<int>(k) == d ? picks[static_cast<size_t>(e)] : here) * to_strides[k];
        }
        total[static_cast<size_t>(to)] += add[static_cast<size_t>(from)];
      }
      write(view(y), 0, y.elements(), total.data());
    });
  });
}

ASCEND_OP(InplaceIndexCopy,
          aclTensor* self_ref,
          int64_t dim,
          const aclTensor* index_in,
          const aclTensor* source_in) {
  return plan("InplaceIndexCopy", workspace_size, executor, [&](Plan& op) {
    const Tensor x = op.inout("selfRef", self_ref);
    const Tensor index = op.input("index", index_in), source = op.input("source", source_in);
    require_number(op, "selfRef", x);
    require_index(op, "index", index);
    op.require_rank("index", index, 0, 1);
    op.require_same_type("selfRef", x, "source", source);
    const int d = op.axis(dim, x.rank());
    Shape shape = x.shape;
    shape[static_cast<size_t>(d)] = index.elements();
    op.require_shape("source", source, shape);
    op.launch([=](Launch& at) {
      const std::vector<int64_t> rows = checked_indices(at, index, x.dim(d));
      for (size_t i = 0; i < rows.size(); ++i)
        copy_row(view(x.select(d, rows[i])), view(source.select(d, static_cast<int64_t>(i))));
    });
  });
}
