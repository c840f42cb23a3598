#include "checkpoint/weights.h"

namespace ferry {
namespace {

bool stacked(const std::string& name) { return name.find('*') != std::string::npos; }

std::string expert_name(const std::string& name, int64_t expert) {
  const size_t star = name.find('*');
  return name.substr(0, star) + std::to_string(expert) + name.substr(star + 1);
}

Result<void> expect_tensor(const ModelDir& dir, const std::string& name, const Shape& shape) {
  const TensorInfo* info = dir.info(name);
  if (info == nullptr)
    return fail(Code::kInvalidInput,
                "{}: tensor \"{}\" is missing; config.json asks for it",
                dir.path(),
                name);
  if (info->shape != shape)
    return fail(Code::kInvalidInput,
                "{}: tensor \"{}\" is {}, config.json asks for {}",
                dir.path(),
                name,
                info->shape.str(),
                shape.str());
  return {};
}

Result<void> load_weight(ModelDir& dir, Weight& w, std::set<std::string>& unread) {
  const Shape& shape = w.value.shape();
  if (stacked(w.name)) {
    for (int64_t e = 0; e < shape[0]; ++e) {
      const std::string name = expert_name(w.name, e);
      TRY(expect_tensor(dir, name, {shape[1], shape[2]}));
      unread.erase(name);
    }
    TRY_ASSIGN(w.value, dir.load_stacked(w.name, shape[0], w.value.device(), w.value.dtype()));
  } else {
    TRY(expect_tensor(dir, w.name, shape));
    unread.erase(w.name);
    TRY_ASSIGN(w.value, dir.load(w.name, w.value.device(), w.value.dtype()));
  }
  w.changed();
  return {};
}

Result<void> check_alias(ModelDir& dir, const WeightAlias& alias, std::set<std::string>& unread) {
  if (unread.erase(alias.first) == 0) return {};
  const Tensor& value = alias.second->value;
  TRY(expect_tensor(dir, alias.first, value.shape()));
  TRY_ASSIGN(const Tensor copy, dir.load(alias.first, value.device(), value.dtype()));
  std::vector<char> a(value.bytes()), b(copy.bytes());
  value.copy_bytes_to(a.data());
  copy.copy_bytes_to(b.data());
  if (a != b)
    return fail(Code::kInvalidInput,
                "{}: tensor \"{}\" differs from \"{}\"; Ferry shares the two",
                dir.path(),
                alias.first,
                alias.second->name);
  return {};
}

}  // namespace

Result<void> load_weights(ModelDir& dir,
                          const std::vector<Weight*>& weights,
                          const std::vector<WeightAlias>& aliases,
                          const std::set<std::string>& unused) {
  const std::vector<std::string> names = dir.names();
  std::set<std::string> unread(names.begin(), names.end());
  for (const std::string& name : unused) unread.erase(name);
  for (Weight* w : weights) TRY(load_weight(dir, *w, unread));
  for (const WeightAlias& alias : aliases) TRY(check_alias(dir, alias, unread));
  if (!unread.empty())
    return fail(Code::kInvalidInput,
                "{}: tensor \"{}\" is not part of the model that config.json describes",
                dir.path(),
                *unread.begin());
  return {};
}

std::vector<NamedTensor> stored_weights(const std::vector<Weight*>& weights,
                                        const std::vector<WeightAlias>& aliases,
                                        DType matrices) {
  std::vector<NamedTensor> out;
  const auto add = [&](const std::string& name, const Weight& w) {
    out.push_back({name, w.value, w.matrix() ? matrices : DType::kF32});
  };
  for (const Weight* w : weights) add(w->name, *w);
  for (const WeightAlias& alias : aliases) add(alias.first, *alias.second);
  return out;
}

}  // namespace ferry
