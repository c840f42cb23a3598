// GroupedMatmulV5: the products of all experts in one call. What is offered is the case without
// quantisation: float32, float16 or bfloat16 in x, weight and out alike.
#include "opapi/op_kit.h"
#include "opapi/product.h"

using namespace ascend_sim;

namespace {

enum : int64_t { kNoSplit = -1, kSplitM = 0, kSplitK = 2 };
enum : int64_t { kRunningSums = 0, kCounts = 1 };

/// All tensors of a call, and what they mean.
struct Grouped {
  std::vector<Tensor> x, weight, out;
  std::optional<std::vector<Tensor>> bias;
  std::optional<Tensor> list;
  int64_t type, list_type;
};

bool rows_in_order(const Tensor& t) { return t.dim(-1) == 1 || t.stride(-1) == 1; }
bool columns_in_order(const Tensor& t) { return t.dim(-2) == 1 || t.stride(-2) == 1; }

void require_tensors(const Plan& op, const Grouped& g) {
  require_float(op, "x", g.x[0]);
  for (const auto* list : {&g.x, &g.weight, &g.out}) {
    op.require(list->size() <= 128, "a list has more than 128 tensors");
    for (const Tensor& t : *list) {
      op.require_same_type("x", g.x[0], "x, weight, out", t);
      op.require(t.format != ACL_FORMAT_FRACTAL_NZ, "FRACTAL_NZ weights are not offered here");
    }
  }
  for (const auto* list : {&g.x, &g.weight})
    for (const Tensor& t : *list)
      op.require(t.dim(-1) < 65536, "the last dimension of x and weight must be below 65536");
  op.require(g.list_type == kRunningSums || g.list_type == kCounts,
             "groupListType must be 0 or 1 without quantisation");
}

void require_list(const Plan& op, const Grouped& g, int64_t groups) {
  op.require(g.list.has_value(), "groupListOptional is needed");
  op.require_type("groupListOptional", *g.list, {ACL_INT64});
  op.require_shape("groupListOptional", *g.list, {groups});
  op.require(groups <= (g.weight.size() > 1 ? 128 : 1024), "too many groups");
}

void require_bias(const Plan& op, const Grouped& g) {
  if (!g.bias) return;
  op.require(g.bias->size() == g.weight.size(), "bias has not as many tensors as weight");
  for (size_t i = 0; i < g.bias->size(); ++i) {
    const Tensor& b = (*g.bias)[i];
    const Tensor& w = g.weight[i];
    op.require(b.dtype == (g.x[0].dtype == ACL_BF16 ? ACL_FLOAT : g.x[0].dtype),
               "bias must be FLOAT for BFLOAT16, of x's type otherwise");
    op.require_shape("bias", b, w.rank() == 3 ? Shape{w.dim(0), w.dim(-1)} : Shape{w.dim(-1)});
  }
}

void require_split_m(const Plan& op, const Grouped& g) {
  op.require(g.x.size() == 1 && g.out.size() == 1,
             "one x and one out are offered with groupType 0");
  const Tensor& x = g.x[0];
  op.require_rank("x", x, 2, 2);
  op.require(rows_in_order(x), "x must not be transposed with groupType 0");
  const bool one = g.weight.size() == 1;
  for (const Tensor& w : g.weight) {
    op.require_rank("weight", w, one ? 3 : 2, one ? 3 : 2);
    op.require(w.dim(-2) == x.dim(1) && w.dim(-1) == g.weight[0].dim(-1),
               "weight " + to_string(w.shape) + " does not fit x " + to_string(x.shape));
  }
  op.require_shape("out", g.out[0], {x.dim(0), g.weight[0].dim(-1)});
  require_list(op, g, one ? g.weight[0].dim(0) : static_cast<int64_t>(g.weight.size()));
}

void require_split_k(const Plan& op, const Grouped& g) {
  op.require(g.x.size() == 1 && g.weight.size() == 1 && g.out.size() == 1,
             "one x, one weight and one out are offered with groupType 2");
  const Tensor &x = g.x[0], &w = g.weight[0], &y = g.out[0];
  op.require_rank("x", x, 2, 2);
  op.require_rank("weight", w, 2, 2);
  op.require_rank("out", y, 3, 3);
  op.require(columns_in_order(x), "x must be a transposed view with groupType 2");
  op.require(rows_in_order(w), "weight must not be transposed with groupType 2");
  op.require(w.dim(0) == x.dim(1),
             "weight " + to_string(w.shape) + " does not fit x " + to_string(x.shape));
  op.require_shape("out", y, {y.dim(0), x.dim(0), w.dim(1)});
  op.require(!g.bias, "bias must be null with groupType 2");
  require_list(op, g, y.dim(0));
}

void require_no_split(const Plan& op, const Grouped& g) {
  op.require(!g.list, "groupListOptional must be null with groupType -1");
  op.require(g.x.size() == g.weight.size() && g.out.size() == g.weight.size(),
             "x, weight and out must have as many tensors with groupType -1");
  for (size_t i = 0; i < g.x.size(); ++i) {
    op.require_rank("x", g.x[i], 2, 2);
    op.require_rank("weight", g.weight[i], 2, 2);
    op.require(rows_in_order(g.x[i]), "x must not be transposed with groupType -1");
    op.require(g.weight[i].dim(0) == g.x[i].dim(1), "weight does not fit x");
    op.require_shape("out", g.out[i], {g.x[i].dim(0), g.weight[i].dim(1)});
  }
}

/// [first, last) of each group along the axis that is split.
std::vector<std::pair<int64_t, int64_t>> groups_of(const Launch& at,
                                                   const Grouped& g,
                                                   int64_t size) {
  std::vector<std::pair<int64_t, int64_t>> out;
  int64_t end = 0;
  for (int64_t value : integers(view(*g.list))) {
    const int64_t begin = end;
    end = g.list_type == kRunningSums ? value : end + value;
    if (end < begin || end > size)
      at.fault(code::kAicoreException,
               "groupList leads from " + std::to_string(begin) + " to " + std::to_string(end) +
                   " of " + std::to_string(size));
    out.emplace_back(begin, end);
  }
  return out;
}

}  // namespace

ASCEND_REDUCES(GroupedMatmulV5)
ASCEND_DEFECT(gmm_next_expert,
              "GroupedMatmulV5",
              "each group but the last takes the next expert's weights")
ASCEND_DEFECT(gmm_skips_last_after_empty,
              "GroupedMatmulV5",
              "the last group is left out where a group is empty")
ASCEND_DEFECT(gmm_grad_not_accumulated,
              "GroupedMatmulV5",
              "groupType 2 keeps the last block of 4 tokens only")

ASCEND_OP(GroupedMatmulV5,
          const aclTensorList* x,
          const aclTensorList* weight,
          const aclTensorList* bias,
          const aclTensorList* scale,
          const aclTensorList* offset,
          const aclTensorList* antiquant_scale,
          const aclTensorList* antiquant_offset,
          const aclTensorList* per_token_scale,
          const aclTensor* group_list,
          const aclTensorList* activation_input,
          const aclTensorList* activation_quant_scale,
          const aclTensorList* activation_quant_offset,
          int64_t split_item,
          int64_t group_type,
          int64_t group_list_type,
          int64_t act_type,
          aclIntArray* tuning_config,
          aclTensorList* out,
          aclTensorList* activation_feature_out,
          aclTensorList* dyn_quant_scale_out) {
  return plan("GroupedMatmulV5", workspace_size, executor, [&](Plan& op) {
    Grouped g{op.inputs("x", x),
              op.inputs("weight", weight),
              op.outputs("out", out),
              op.optional_inputs("biasOptional", bias),
              op.optional_input("groupListOptional", group_list),
              group_type,
              group_list_type};
    for (const void* unused : {static_cast<const void*>(scale),
                               static_cast<const void*>(offset),
                               static_cast<const void*>(antiquant_scale),
                               static_cast<const void*>(antiquant_offset),
                               static_cast<const void*>(per_token_scale),
                               static_cast<const void*>(activation_input),
                               static_cast<const void*>(activation_quant_scale),
                               static_cast<const void*>(activation_quant_offset),
                               static_cast<const void*>(activation_feature_out),
                               static_cast<const void*>(dyn_quant_scale_out)})
      op.require(unused == nullptr, "quantisation and activations are not offered here");
    op.require(act_type == 0, "actType must be 0 without quantisation");
    op.require(!g.x.empty() && !g.weight.empty() && !g.out.empty(), "a list is empty");
    require_tensors(op, g);
    require_bias(op, g);
    op.require(split_item >= 0 && split_item <= 3, "splitItem must be 0, 1, 2 or 3");
    op.require((split_item < 2) == (group_type == kNoSplit), "splitItem does not fit groupType");
    if (group_type == kSplitM)
      require_split_m(op, g);
    else if (group_type == kSplitK)
      require_split_k(op, g);
    else if (group_type == kNoSplit)
      require_no_split(op, g);
    else
      op.refuse("groupType must be -1, 0 or 2");
    for (int64_t expected :
         op.optional_ints("tuningConfigOptional", tuning_config).value_or(Shape{}))
      op.require(expected >= -1 && expected <= g.x[0].dim(0), "tuningConfig is out of range");
    op.workspace(256 * 1024);
    op.launch([g](Launch& at) {
      ProductOptions options;
      if (g.type == kNoSplit) {
        for (size_t i = 0; i < g.x.size(); ++i) {
          options.order = {at.order(g.x[i].dim(0))};
          multiply(matrix(view(g.x[i])),
                   matrix(view(g.weight[i])),
                   matrix(view(g.out[i])),
                   {g.x[i].dim(0), g.weight[i].dim(1), at.reduction(g.x[i].dim(1))},
                   options);
        }
        return;
      }
      const bool by_m = g.type == kSplitM;
      const auto groups = groups_of(at, g, g.x[0].dim(by_m ? 0 : 1));
      const auto count = static_cast<int64_t>(groups.size());
      const bool any_empty = std::any_of(
          groups.begin(), groups.end(), [](const auto& p) { return p.first == p.second; });
      for (int64_t i = 0; i < count; ++i) {
        const auto [first, last] = groups[static_cast<size_t>(i)];
        const int64_t n = last - first;
        if (defect("gmm_skips_last_after_empty") && any_empty && i == count - 1) break;
        if (n == 0)
          continue;  // "what groupList does not name is not updated": also with groupType 2
        options.order = {at.order(n)};
        if (!by_m) {
          const bool last_block = defect("gmm_grad_not_accumulated") && n > 4;
          const int64_t from = last_block ? first + (n - 1) / 4 * 4 : first;
          multiply(matrix(view(g.x[0].narrow(1, from, last - from))),
                   matrix(view(g.weight[0].narrow(0, from, last - from))),
                   matrix(view(g.out[0].select(0, i))),
                   {g.x[0].dim(0), g.weight[0].dim(1), at.reduction(last - from)},
                   options);
          continue;
        }
        const int64_t expert = defect("gmm_next_expert") ? std::min(i + 1, count - 1) : i;
        const auto e = static_cast<size_t>(expert);
        const Tensor w = g.weight.size() == 1 ? g.weight[0].select(0, expert) : g.weight[e];
        std::vector<float> shift;
        if (g.bias)
          shift =
              floats(view(g.weight.size() == 1 ? (*g.bias)[0].select(0, expert) : (*g.bias)[e]));
        options.bias = shift.empty() ? nullptr : shift.data();
        multiply(matrix(view(g.x[0].narrow(0, first, n))),
                 matrix(view(w)),
                 matrix(view(g.out[0].narrow(0, first, n))),
                 {n, w.dim(1), at.reduction(w.dim(0))},
                 options);
      }
    });
  });
}
