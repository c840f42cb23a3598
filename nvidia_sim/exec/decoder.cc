#include "exec/decoder.h"

#include <algorithm>
#include <set>

namespace nvidia_sim {
namespace {

constexpr const char* kSpecialNames[kSpecials] = {"%tid.x",
                                                  "%tid.y",
                                                  "%tid.z",
                                                  "%ntid.x",
                                                  "%ntid.y",
                                                  "%ntid.z",
                                                  "%ctaid.x",
                                                  "%ctaid.y",
                                                  "%ctaid.z",
                                                  "%nctaid.x",
                                                  "%nctaid.y",
                                                  "%nctaid.z",
                                                  "%laneid"};

}  // namespace

// --- registers ---

Registers::Registers(const Module& module, const Entry& entry) : entry_(entry) {
  for (const char* name : kSpecialNames) {
    places_[name] = reserve(4);
    types_[name] = Type::kU32;
  }
  for (const auto& [name, type] : entry.registers) {
    if (places_.contains(name)) throw PtxError(entry.line, name + " is the chip's own register");
    types_[name] = type;
    places_[name] = type == Type::kPred ? predicates_++ : reserve(size_of(type));
  }
  const auto lay = [&](const Variable& v) {
    shared_bytes_ = (shared_bytes_ + v.align - 1) / v.align * v.align;
    if (!shared_.emplace(v.name, shared_bytes_).second)
      throw PtxError(entry.line, "two variables " + v.name + " in shared memory");
    shared_bytes_ += v.bytes;
  };
  for (const Variable& v : entry.shared) lay(v);
  // Of the module's variables a kernel has those that it names.
  std::set<std::string> named;
  for (const Statement& s : entry.body)
    for (const Operand& o : s.operands) named.insert(o.name);
  for (const Variable& v : module.shared)
    if (v.bytes > 0 && named.contains(v.name)) lay(v);
  for (const Variable& v : module.shared)
    if (v.bytes == 0 && named.contains(v.name)) lay(v);  // what the launch adds lies behind all
}

uint32_t Registers::reserve(int bytes) {
  const uint32_t at = bytes_;
  bytes_ += static_cast<uint32_t>(bytes) * kWarpSize;
  return at;
}

uint32_t Registers::place(const std::string& name, int line) const {
  const auto at = places_.find(name);
  if (at == places_.end()) throw PtxError(line, "no register " + name);
  return at->second;
}

Type Registers::type(const std::string& name, int line) const {
  const auto at = types_.find(name);
  if (at == types_.end()) throw PtxError(line, "no register " + name);
  return at->second;
}

uint32_t Registers::constant(uint64_t value, int bytes) {
  const auto [at, fresh] = constants_.emplace(std::pair(value, bytes), 0);
  if (fresh) at->second = reserve(bytes);
  return at->second;
}

uint64_t Registers::shared(const std::string& name, int line) const {
  const auto at = shared_.find(name);
  if (at == shared_.end()) throw PtxError(line, "no variable " + name + " in shared memory");
  return at->second;
}

void Registers::finish(Kernel& kernel) const {
  kernel.registers_bytes = bytes_;
  kernel.predicates = predicates_;
  kernel.shared_bytes = shared_bytes_;
  for (const auto& [key, at] : constants_) kernel.constants.push_back({at, key.second, key.first});
  for (size_t s = 0; s < kSpecials; ++s) kernel.special[s] = place(kSpecialNames[s], entry_.line);
}

// --- statements ---

Decoder::Decoder(const Statement& statement,
                 Registers& registers,
                 const Entry& entry,
                 Kernel& kernel)
    : statement_(statement),
      registers_(registers),
      entry_(entry),
      kernel_(kernel),
      taken_(statement.opcode.size(), false) {
  taken_[0] = true;
  out_.line = statement.line;
  out_.name = statement.name();
  if (!statement.guard.empty()) {
    if (registers.type(statement.guard, statement.line) != Type::kPred)
      refuse(statement.guard + " is no predicate");
    out_.guard = static_cast<int>(registers.place(statement.guard, statement.line));
    out_.guard_negated = statement.guard_negated;
  }
}

bool Decoder::take(const char* part) {
  for (size_t n = 1; n < taken_.size(); ++n)
    if (!taken_[n] && statement_.opcode[n] == part) return taken_[n] = true;
  return false;
}

Type Decoder::take_type() {
  for (size_t n = 1; n < taken_.size(); ++n) {
    const std::optional<Type> type = type_named(statement_.opcode[n]);
    if (taken_[n] || !type) continue;
    taken_[n] = true;
    return *type;
  }
  refuse("a type is missing, or not part of software NVIDIA");
}

void Decoder::refuse(const std::string& why) const {
  throw PtxError(statement_.line,
                 statement_.name() + ": " + (why.empty() ? "is not part of software NVIDIA" : why));
}

void Decoder::complete(size_t operands) const {
  for (size_t n = 1; n < taken_.size(); ++n)
    if (!taken_[n]) refuse("." + statement_.opcode[n] + " is not part of software NVIDIA here");
  if (statement_.operands.size() != operands)
    refuse("has " + std::to_string(statement_.operands.size()) + " operands, not " +
           std::to_string(operands));
}

const Operand& Decoder::operand(size_t n) const {
  if (n >= statement_.operands.size()) refuse("an operand is missing");
  return statement_.operands[n];
}

int Decoder::width(const Operand& o) const {
  if (o.kind == Operand::Kind::kInteger) return 8;
  if (o.kind != Operand::Kind::kRegister) refuse("a register is expected");
  return size_of(registers_.type(o.name, statement_.line));
}

uint32_t Decoder::source(const Operand& o, int bytes) {
  if (o.negated || !o.second.empty()) refuse("an operand of a kind that it does not take");
  switch (o.kind) {
    case Operand::Kind::kRegister: {
      const int its = size_of(registers_.type(o.name, statement_.line));
      if (its != bytes)
        refuse(o.name + " has " + std::to_string(its) + " bytes, not " + std::to_string(bytes));
      return registers_.place(o.name, statement_.line);
    }
    case Operand::Kind::kInteger: {
      const auto value = static_cast<uint64_t>(o.value);
      return registers_.constant(bytes == 8 ? value : value & ((uint64_t{1} << 8 * bytes) - 1),
                                 bytes);
    }
    case Operand::Kind::kFloat:
      if (o.float_bytes != bytes) refuse("a number of another width");
      return registers_.constant(static_cast<uint64_t>(o.value), bytes);
    case Operand::Kind::kSymbol:
      if (bytes < 4) refuse("an address of " + std::to_string(bytes) + " bytes");
      if (const std::optional<uint64_t> at = param(o.name)) return registers_.constant(*at, bytes);
      return registers_.constant(registers_.shared(o.name, statement_.line), bytes);
    default: refuse("an operand of a kind that it does not take");
  }
}

uint32_t Decoder::destination(const Operand& o, int bytes) const {
  if (o.kind != Operand::Kind::kRegister || o.negated) refuse("a register is expected");
  if (o.name.find('.') != std::string::npos || o.name == "%laneid")
    refuse(o.name + " cannot be written");
  const int its = size_of(registers_.type(o.name, statement_.line));
  if (its != bytes)
    refuse(o.name + " has " + std::to_string(its) + " bytes, not " + std::to_string(bytes));
  return registers_.place(o.name, statement_.line);
}

uint32_t Decoder::predicate(const Operand& o) const {
  if (o.kind != Operand::Kind::kRegister || o.negated ||
      registers_.type(o.name, statement_.line) != Type::kPred)
    refuse("a predicate is expected");
  return registers_.place(o.name, statement_.line);
}

void Decoder::map(int bytes, std::initializer_list<int> sources) {
  complete(1 + sources.size());
  out_.d[0] = destination(size_t{0}, bytes);
  size_t n = 0;
  for (const int its : sources) {
    out_.a[n] = source(n + 1, its);
    ++n;
  }
}

void Decoder::shared_address(size_t n) {
  const Operand& o = operand(n);
  if (o.kind != Operand::Kind::kAddress) refuse("an address is expected");
  out_.offset = o.value;
  Operand base = o;
  base.kind = o.in_register    ? Operand::Kind::kRegister
              : o.name.empty() ? Operand::Kind::kInteger
                               : Operand::Kind::kSymbol;
  base.value = 0;
  // An address of shared memory may come in 64 bits: of those the lower 32 count.
  out_.mode = base.kind == Operand::Kind::kRegister ? width(base) : 4;
  if (out_.mode != 4 && out_.mode != 8) refuse("an address has 32 or 64 bits");
  out_.a[0] = source(base, out_.mode);
}

void Decoder::global_address(size_t n) {
  const Operand& o = operand(n);
  if (o.kind != Operand::Kind::kAddress || !o.in_register)
    refuse("an address in a register is expected");
  Operand base = o;
  base.kind = Operand::Kind::kRegister;
  out_.a[0] = source(base, 8);
  out_.offset = o.value;
}

std::optional<uint64_t> Decoder::param(const std::string& name) const {
  for (size_t p = 0; p < entry_.params.size(); ++p)
    if (entry_.params[p].name == name) return kernel_.params[p];
  return std::nullopt;
}

void Decoder::param_address(size_t n, int bytes) {
  const Operand& o = operand(n);
  if (o.kind != Operand::Kind::kAddress) refuse("an address is expected");
  if (o.in_register) {  // of a parameter, by mov: checked when it is used
    global_address(n);
    out_.mode = 8;
    return;
  }
  const std::optional<uint64_t> begin = param(o.name);
  if (!begin) refuse("no parameter " + o.name);
  const auto size = static_cast<uint64_t>(bytes), at = *begin + static_cast<uint64_t>(o.value);
  if (at > kernel_.params_bytes || size > kernel_.params_bytes - at)
    refuse("reads beyond the parameter " + o.name);
  if (at % size != 0) refuse("reads a parameter at a wrong alignment");
  out_.offset = static_cast<int64_t>(at);
}

void Decoder::label(size_t n) {
  const Operand& o = operand(n);
  const auto at = entry_.labels.find(o.name);
  if (o.kind != Operand::Kind::kSymbol || at == entry_.labels.end()) refuse("no label " + o.name);
  out_.target = at->second;
}

}  // namespace nvidia_sim
