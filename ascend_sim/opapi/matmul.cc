// Dense products: Mm, Matmul, BatchMatMul.
#include "opapi/op_kit.h"
#include "opapi/product.h"

using namespace ascend_sim;

namespace {

/// What cubeMathType asks of float32 inputs; refuses what the documents refuse.
Cut cut_of(const Plan& op, const Tensor& a, int8_t cube_math_type) {
  constexpr int8_t kKeep = 0, kDown = 1, kUseFp16 = 2, kUseHf32 = 3, kFp32Add = 4;
  op.require(cube_math_type >= kKeep && cube_math_type <= kFp32Add,
             "cubeMathType must be 0, 1, 2, 3 or 4");
  op.require(cube_math_type != kUseFp16 || a.dtype != ACL_BF16,
             "cubeMathType 2 (USE_FP16) does not take BFLOAT16");
  const bool old = op.chip().family == ChipFamily::k310P;
  op.require(!old || a.dtype != ACL_FLOAT || cube_math_type != kKeep,
             "FLOAT32 with cubeMathType 0 is not supported on " + op.chip().name);
  if (a.dtype != ACL_FLOAT) return Cut::kNone;
  if (cube_math_type == kUseFp16 || (cube_math_type == kDown && old)) return Cut::kF16;
  return cube_math_type == kDown || cube_math_type == kUseHf32 ? Cut::kHf32 : Cut::kNone;
}

struct Operands {
  Tensor a, b, out;
  Cut cut;
};

Operands take(Plan& op, const aclTensor* self, const aclTensor* mat2, aclTensor* out, int8_t cube) {
  Operands o{op.input("self", self), op.input("mat2", mat2), op.output("out", out), Cut::kNone};
  require_float(op, "self", o.a);
  op.require_same_type("self", o.a, "mat2", o.b);
  op.require(o.out.dtype == o.a.dtype ||
                 (op.chip().family == ChipFamily::k950 && o.out.dtype == ACL_FLOAT),
             "out is not of the type of self");
  for (const Tensor* t : {&o.a, &o.b, &o.out})
    op.require(t->format != ACL_FORMAT_FRACTAL_NZ, "FRACTAL_NZ weights are not offered here");
  o.cut = cut_of(op, o.a, cube);
  return o;
}

/// The planted defects of a product; each op has its own names for them.
struct Spoiled {
  bool hf32 = false;       // float32 is cut although it was not asked for
  bool lost_tail = false;  // the contraction stops at the last whole block of 16
};

void multiply_views(
    const Launch& at, const View& a, const View& b, const View& out, Cut cut, Spoiled spoiled) {
  int64_t k = at.reduction(a.size(-1));
  if (spoiled.lost_tail && k > 16) k = k / 16 * 16;
  ProductOptions options;
  options.order = {at.order(a.size(-2))};
  options.cut = spoiled.hf32 && a.type == ACL_FLOAT ? Cut::kHf32 : cut;
  multiply(matrix(a), matrix(b), matrix(out), {a.size(-2), b.size(-1), k}, options);
}

/// Rank 1 to 6 with broadcast batches, as torch.matmul.
aclnnStatus batched(const char* name,
                    const aclTensor* self,
                    const aclTensor* mat2,
                    aclTensor* out,
                    int8_t cube_math_type,
                    uint64_t* workspace_size,
                    aclOpExecutor** executor,
                    int least_rank,
                    int most_rank,
                    bool (*is_spoiled_hf32)(),
                    bool (*is_spoiled_tail)()) {
  return plan(name, workspace_size, executor, [&](Plan& op) {
    const Operands o = take(op, self, mat2, out, cube_math_type);
    op.require_rank("self", o.a, least_rank, most_rank);
    op.require_rank("mat2", o.b, least_rank, most_rank);
    const bool row = o.a.rank() == 1, column = o.b.rank() == 1;
    const auto wide = [](const Tensor& t, bool vector, bool as_row) {
      Tensor w = t;
      if (!vector) return w;
      const size_t place = as_row ? 0 : 1;
      w.shape.insert(w.shape.begin() + static_cast<int64_t>(place), 1);
      w.strides.insert(w.strides.begin() + static_cast<int64_t>(place), 0);
      return w;
    };
    const Tensor a = wide(o.a, row, true), b = wide(o.b, column, false);
    op.require(
        a.dim(-1) == b.dim(-2),
        "self " + to_string(o.a.shape) + " and mat2 " + to_string(o.b.shape) + " do not multiply");
    const Shape batch_a(a.shape.begin(), a.shape.end() - 2);
    const Shape batch_b(b.shape.begin(), b.shape.end() - 2);
    const std::optional<Shape> batch = broadcast_shapes(batch_a, batch_b);
    op.require(batch.has_value(), "the batches of self and mat2 do not broadcast");
    Shape full = *batch, shape = *batch;
    full.insert(full.end(), {a.dim(-2), b.dim(-1)});
    if (!row) shape.push_back(a.dim(-2));
    if (!column) shape.push_back(b.dim(-1));
    op.require_shape("out", o.out, shape);
    op.workspace(16 * 1024);
    op.launch([=](Launch& at) {
      View to = view(o.out);
      to.dims = full;
      if (row || column) {  // the dimension that out lacks is of size 1
        const Dims& s = to.strides;
        const size_t lead = batch->size();
        Dims strides(s.begin(), s.begin() + static_cast<int64_t>(lead));
        size_t next = lead;
        strides.push_back(row ? 0 : s[next++]);
        strides.push_back(column ? 0 : s[next]);
        to.strides = strides;
      }
      Shape shape_a = *batch, shape_b = *batch;
      shape_a.insert(shape_a.end(), {a.dim(-2), a.dim(-1)});
      shape_b.insert(shape_b.end(), {b.dim(-2), b.dim(-1)});
      const View va = broadcast(view(a), shape_a), vb = broadcast(view(b), shape_b);
      const Spoiled spoiled{is_spoiled_hf32(), is_spoiled_tail()};
      const int64_t batches = element_count(*batch);
      Dims index(batch->size(), 0);
      for (int64_t i = 0; i < batches; ++i) {
        View x = va, y = vb, z = to;
        for (size_t d = 0; d < index.size(); ++d) {
          x = selected(x, 0, index[d]);
          y = selected(y, 0, index[d]);
          z = selected(z, 0, index[d]);
        }
        multiply_views(at, x, y, z, o.cut, spoiled);
        for (size_t d = index.size(); d-- > 0;) {
          if (++index[d] < (*batch)[d]) break;
          index[d] = 0;
        }
      }
    });
  });
}

}  // namespace

ASCEND_REDUCES(Mm)
ASCEND_DEFECT(mm_hf32, "Mm", "multiplies float32 as HF32 although cubeMathType is 0")
ASCEND_DEFECT(mm_loses_k_tail, "Mm", "the contraction stops at the last whole block of 16")

ASCEND_OP(Mm, const aclTensor* self, const aclTensor* mat2, aclTensor* out, int8_t cube_math_type) {
  return batched(
      "Mm",
      self,
      mat2,
      out,
      cube_math_type,
      workspace_size,
      executor,
      2,
      2,
      [] { return defect("mm_hf32"); },
      [] { return defect("mm_loses_k_tail"); });
}

ASCEND_REDUCES(Matmul)

ASCEND_OP(
    Matmul, const aclTensor* self, const aclTensor* mat2, aclTensor* out, int8_t cube_math_type) {
  return batched(
      "Matmul",
      self,
      mat2,
      out,
      cube_math_type,
      workspace_size,
      executor,
      1,
      6,
      [] { return false; },
      [] { return false; });
}

ASCEND_REDUCES(BatchMatMul)
ASCEND_DEFECT(bmm_hf32, "BatchMatMul", "multiplies float32 as HF32 although cubeMathType is 0")
ASCEND_DEFECT(bmm_loses_k_tail, "BatchMatMul", "the contraction stops at the last block of 16")

ASCEND_OP(BatchMatMul,
          const aclTensor* self,
          const aclTensor* mat2,
          aclTensor* out,
          int8_t cube_math_type) {
  return batched(
      "BatchMatMul",
      self,
      mat2,
      out,
      cube_math_type,
      workspace_size,
      executor,
      3,
      3,
      [] { return defect("bmm_hf32"); },
      [] { return defect("bmm_loses_k_tail"); });
}
