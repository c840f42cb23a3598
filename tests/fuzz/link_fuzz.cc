// Fuzzer of a link between ranks: whatever comes over it is the message that was expected, with the hash that only
// the other end can make, or is refused with words; nothing is taken for what it is not.
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "base/check.h"
#include "comm/socket_communicator.h"

namespace {

using namespace ferry;

/// Seeds are made with this key; who does not have it makes no message.
Digest fuzz_key() {
  Digest key{};
  key.fill(7);
  return key;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  int ends[2];
  check(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0,
        "fuzz: no sockets");
  check(::send(ends[1], data, size, MSG_NOSIGNAL) == static_cast<ssize_t>(size) || size == 0,
        "fuzz: not sent");
  ::close(ends[1]);
  std::vector<comm::Link> links(2);
  links[1] = {ends[0], fuzz_key(), fuzz_key()};
  const auto rank = comm::socket_communicator(0, std::move(links));
  std::vector<uint64_t> numbers(2);
  rank->receive(1, {comm::Purpose::kSquares, 5, 0}, comm::bytes_of(numbers));
  try {
    rank->finish(10);
  } catch (const comm::LinkError& e) {
    check(e.peer() == 1 && std::strlen(e.what()) > 0, "fuzz: refused without a word");
    return 0;
  }
  // What the seed says; nobody without the key can have said it.
  check(numbers == std::vector<uint64_t>{1, 2}, "fuzz: believed {} {}", numbers[0], numbers[1]);
  return 0;
}
