// A PTX module as it was written: names, types and operands, before anything is made of them.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace nvidia_sim {

/// What is wrong with a module, and in which line.
class PtxError : public std::runtime_error {
 public:
  PtxError(int line, const std::string& what)
      : std::runtime_error("line " + std::to_string(line) + ": " + what) {}
};

/// The fundamental types; what `pred` is to registers is here a type as well.
enum class Type : uint8_t {
  kPred,
  kB8,
  kU8,
  kS8,
  kB16,
  kU16,
  kS16,
  kB32,
  kU32,
  kS32,
  kB64,
  kU64,
  kS64,
  kF32,
  kF64,
};

/// "f32"; nothing for a type that software NVIDIA does not have.
std::optional<Type> type_named(const std::string& name);
/// Bytes of a value in memory; of a predicate 0.
int size_of(Type type);
bool is_float(Type type);

struct Operand {
  enum class Kind : uint8_t {
    kRegister,  // %r1, !%p1, %tid.x
    kInteger,   // 12, 0x1F
    kFloat,     // 0f3F800000, 0d...: the bits
    kSymbol,    // a label or a variable
    kAddress,   // [name+8]; name "" is an absolute one
    kVector,    // {%r1, %r2}
    kSink,      // _
  };
  Kind kind = Kind::kSink;
  std::string name;
  std::string second;  // the predicate of %r1|%p1
  int64_t value = 0;   // a number, or what is added to an address
  int float_bytes = 0;
  bool negated = false;
  bool in_register = false;  // of an address: the name is a register
  std::vector<Operand> parts;
};

struct Statement {
  int line = 0;
  std::vector<std::string> opcode;  // "ld", "global", "f32"
  std::string guard;                // "%p1", or none
  bool guard_negated = false;
  std::vector<Operand> operands;

  std::string name() const;  // "ld.global.f32"
};

/// A variable in shared memory, or a parameter of a kernel.
struct Variable {
  std::string name;
  uint64_t bytes = 0;  // 0: of an extern array, whose size the launch says
  uint64_t align = 1;
};

struct Entry {
  std::string name;
  int line = 0;
  std::vector<Variable> params;
  std::map<std::string, Type> registers;  // "%r1"
  std::vector<Variable> shared;
  std::vector<Statement> body;
  std::map<std::string, size_t> labels;  // of the statement that follows
  uint32_t threads_max = 1024;           // .maxntid
  uint32_t threads_required = 0;         // .reqntid
};

struct Module {
  int version = 0;  // 90 for 9.0
  int target = 0;   // 80 for sm_80
  std::vector<Variable> shared;
  std::vector<Entry> entries;
};

}  // namespace nvidia_sim
