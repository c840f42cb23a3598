// What the families of instructions share while a kernel is decoded: the parts of an opcode, each
// of which somebody must take, and the places of operands.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "exec/program.h"
#include "ptx/module.h"

namespace nvidia_sim {

/// Of a memory instruction's mode: of shared memory, the address has 64 bits; of parameters, there
/// is one.
inline constexpr int kWideAddress = 256;

/// The registers of a kernel and their places.
class Registers {
 public:
  Registers(const Module& module, const Entry& entry);

  /// Throws PtxError for a name that was not declared.
  uint32_t place(const std::string& name, int line) const;
  Type type(const std::string& name, int line) const;
  /// A register that holds the number in every lane.
  uint32_t constant(uint64_t value, int bytes);
  /// The offset of a variable in shared memory; throws for another name.
  uint64_t shared(const std::string& name, int line) const;

  /// Tells the kernel what was given away.
  void finish(Kernel& kernel) const;

 private:
  uint32_t reserve(int bytes);

  const Entry& entry_;
  std::map<std::string, uint32_t> places_;  // of predicates their numbers
  std::map<std::string, Type> types_;
  std::map<std::pair<uint64_t, int>, uint32_t> constants_;
  std::map<std::string, uint64_t> shared_;
  uint64_t shared_bytes_ = 0;
  uint32_t bytes_ = 0, predicates_ = 0;
};

class Decoder {
 public:
  Decoder(const Statement& statement, Registers& registers, const Entry& entry, Kernel& kernel);

  const std::string& base() const { return statement_.opcode.front(); }
  const Statement& statement() const { return statement_; }
  Instruction& out() { return out_; }
  Kernel& kernel() { return kernel_; }

  /// Whether the opcode has this part, which is dealt with now.
  bool take(const char* part);
  /// The next part that is a type. Throws PtxError if there is none.
  Type take_type();
  /// The statement is not part of software NVIDIA, or wrong.
  [[noreturn]] void refuse(const std::string& why = "") const;
  /// Every part was taken, and there are so many operands.
  void complete(size_t operands) const;

  // The places of operand `n`, which must be of so many bytes: else PtxError.
  uint32_t source(size_t n, int bytes) { return source(operand(n), bytes); }
  uint32_t source(const Operand& operand, int bytes);
  uint32_t destination(size_t n, int bytes) { return destination(operand(n), bytes); }
  uint32_t destination(const Operand& operand, int bytes) const;
  uint32_t predicate(size_t n) const { return predicate(operand(n)); }
  uint32_t predicate(const Operand& operand) const;
  /// Bytes of the register that operand `n` is; of a number 8.
  int width(const Operand& operand) const;
  const Operand& operand(size_t n) const;

  /// Operands from the first on: a result of `bytes` and sources of `sources` bytes each.
  void map(int bytes, std::initializer_list<int> sources);

  /// [register+offset], [variable+offset] of shared memory: fills a[0] and offset.
  void shared_address(size_t n);
  /// [register+offset] of 64 bits.
  void global_address(size_t n);
  /// [parameter+offset]: offset, of so many bytes; or [register+offset], and the register in a[0]:
  /// then mode is 8.
  void param_address(size_t n, int bytes);
  void label(size_t n);

 private:
  /// Where the parameter lies; nothing if there is none of the name.
  std::optional<uint64_t> param(const std::string& name) const;

  const Statement& statement_;
  Registers& registers_;
  const Entry& entry_;
  Kernel& kernel_;
  Instruction out_;
  std::vector<bool> taken_;
};

// The families: each decodes a statement that is its own, or says false.
bool decode_arithmetic(Decoder& d);
bool decode_float(Decoder& d);
bool decode_comparison(Decoder& d);
bool decode_conversion(Decoder& d);
bool decode_memory(Decoder& d);
bool decode_warp(Decoder& d);
bool decode_matrix(Decoder& d);
bool decode_async_copy(Decoder& d);
bool decode_control(Decoder& d);

}  // namespace nvidia_sim
