#include "base/flight_record.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/fault.h"
#include "base/flight_reader.h"
#include "base/os_error.h"

namespace ferry::flight {
namespace {

constexpr uint64_t kMagic = 0x3164726f63657246;  // "Fecord1", and which layout

template <typename T>
class Word {
 public:
  void set(T value) { value_.store(value, std::memory_order_relaxed); }
  T get() const { return value_.load(std::memory_order_relaxed); }

 private:
  static_assert(std::atomic<T>::is_always_lock_free, "a lock would be this process's alone");
  std::atomic<T> value_{};
};

/// Up to 8 N - 1 bytes of text.
template <size_t N>
class Text {
 public:
  void set(std::string_view text) {
    text = text.substr(0, 8 * N - 1);
    for (size_t w = 0; w < N; ++w) {
      uint64_t word = 0;
      if (8 * w < text.size())
        std::memcpy(&word, text.data() + 8 * w, std::min<size_t>(8, text.size() - 8 * w));
      words_[w].set(word);
      if (8 * w >= text.size()) return;  // what is behind the end is not read
    }
  }
  /// Its end, where it is longer.
  void set_end(std::string_view text) {
    set(text.substr(text.size() - std::min(text.size(), 8 * N - 1)));
  }
  std::string get() const {
    std::array<char, 8 * N + 1> bytes{};
    for (size_t w = 0; w < N; ++w) {
      const uint64_t word = words_[w].get();
      std::memcpy(bytes.data() + 8 * w, &word, 8);
    }
    return bytes.data();
  }

 private:
  std::array<Word<uint64_t>, N> words_;
};

struct MessageWords {
  Word<uint32_t> purpose, index;
  Word<int64_t> step;
  Word<uint64_t> size, done;

  void set(const Message& m) {
    index.set(m.index);
    step.set(m.step);
    size.set(m.size);
    done.set(m.done);
    purpose.set(m.purpose);
  }
  Message get() const { return {purpose.get(), index.get(), step.get(), size.get(), done.get()}; }
};

}  // namespace

struct Page {
  Word<uint64_t> magic;
  Word<uint64_t> own_moves;              // of the thread that works, which alone adds to it
  std::atomic<uint64_t> other_moves{0};  // of all others
  Word<uint64_t> looks;
  Word<int64_t> step, done, micro_batches, micro_batch_us;
  Word<int32_t> work, layer, peer;
  Word<Activity> activity;
  Word<Pass> pass;
  Word<uint32_t> sending, op_known;
  Text<4> op;
  Text<12> chip_ops;
  Text<2> call;
  Text<12> path;
  Word<uint64_t> file_bytes, launched, ended, exchanges;
  struct Link {
    MessageWords out, in;
    Word<uint64_t> sent, received;
  };
  std::array<Link, kLinksMax> links;

  void begin() {
    layer.set(-1);
    peer.set(-1);
    magic.set(kMagic);
  }
  void move() { own_moves.set(own_moves.get() + 1); }
  Snapshot read(int ranks) const {
    Snapshot s{.moves = own_moves.get() + other_moves.load(std::memory_order_relaxed),
               .looks = looks.get(),
               .step = step.get(),
               .work = work.get(),
               .done = done.get(),
               .micro_batches = micro_batches.get(),
               .micro_batch_us = micro_batch_us.get(),
               .activity = activity.get(),
               .pass = pass.get(),
               .layer = layer.get(),
               .op = op.get(),
               .op_known = op_known.get() != 0,
               .call = call.get(),
               .path = path.get(),
               .file_bytes = file_bytes.get(),
               .launched = launched.get(),
               .ended = ended.get(),
               .chip_ops = chip_ops.get(),
               .exchanges = exchanges.get(),
               .peer = peer.get(),
               .sending = sending.get() != 0};
    for (int r = 0; r < std::min(ranks, kLinksMax); ++r) {
      const Link& l = links[static_cast<size_t>(r)];
      s.links.push_back({l.out.get(), l.in.get(), l.sent.get(), l.received.get()});
    }
    return s;
  }
};

namespace {

std::atomic<Page*> g_page{nullptr};  // for signs of life from other threads

/// Which ops have come to an end, by the place of their names, which are literals. Two that meet in a bit: one of
/// them is thought to be known, and waited for less.
thread_local std::array<uint64_t, 8> t_known{};
thread_local const char* t_op = nullptr;

std::pair<uint64_t&, uint64_t> bit_of(const char* op) {
  const uint64_t hash = (reinterpret_cast<uintptr_t>(op) * 0x9e3779b97f4a7c15) >> 55;
  return {t_known[hash / 64], uint64_t{1} << hash % 64};
}

Page* mapped(int fd) {
  void* const p = ::mmap(nullptr, sizeof(Page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  return p == MAP_FAILED ? nullptr : static_cast<Page*>(p);
}

Page::Link* link_of(int peer) {
  Page* const page = detail::t_page;
  if (page == nullptr || peer < 0 || peer >= kLinksMax) return nullptr;
  return &page->links[static_cast<size_t>(peer)];
}

}  // namespace

Result<Memory> Memory::create() {
  Memory m;
  m.fd_ = ::memfd_create("ferry-flight", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  // Sealed at its size: a process that made it shorter would take its reader down.
  if (m.fd_ < 0 || ::ftruncate(m.fd_, sizeof(Page)) != 0 ||
      ::fcntl(m.fd_, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0 ||
      (m.page_ = mapped(m.fd_)) == nullptr)
    return os_error("memory for what a worker is in", errno);
  m.page_->begin();
  return m;
}

Memory::Memory(Memory&& o) noexcept
    : page_(std::exchange(o.page_, nullptr)), fd_(std::exchange(o.fd_, -1)) {}

Memory& Memory::operator=(Memory&& o) noexcept {
  std::swap(page_, o.page_);
  std::swap(fd_, o.fd_);
  return *this;
}

Memory::~Memory() {
  if (page_ != nullptr) ::munmap(page_, sizeof(Page));
  if (fd_ >= 0) ::close(fd_);
}

Snapshot Memory::read(int ranks) const { return page_->read(ranks); }

bool adopt(int fd) {
  struct stat st {};
  if (::fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size != sizeof(Page)) return false;
  Page* const page = mapped(fd);
  if (page == nullptr) return false;
  if (page->magic.get() != kMagic) {
    ::munmap(page, sizeof(Page));
    return false;
  }
  ::close(fd);
  detail::t_page = page;
  g_page.store(page);
  return true;
}

Own::Own() : page_(std::make_unique<Page>()) {
  page_->begin();
  t_known = {};
  detail::t_page = page_.get();
  g_page.store(page_.get());
}
Own::~Own() {
  g_page.store(nullptr);
  detail::t_page = nullptr;
}
Snapshot Own::read(int ranks) const { return page_->read(ranks); }

namespace detail {

thread_local Page* t_page = nullptr;

void begin_op(Page& page, const char* op) {
  const auto [word, bit] = bit_of(op);
  page.op_known.set((word & bit) != 0 ? 1 : 0);
  page.op.set(op);
  t_op = op;
  page.activity.set(Activity::kOp);
  page.move();
  if (!faults_armed()) return;
  static_cast<void>(fault_point(fmt::format("op.{}", op).c_str()));
  static_cast<void>(fault_point(fmt::format("op.{}.{}", op, page.layer.get()).c_str()));
}

void end_op(Page& page, Activity before) {
  const auto [word, bit] = bit_of(t_op);
  word |= bit;
  page.activity.set(before);
  page.move();
}

Activity activity_of(const Page& page) { return page.activity.get(); }

Activity enter(Page& page, Activity activity) {
  const Activity before = page.activity.get();
  page.activity.set(activity);
  page.move();
  return before;
}

void leave(Page& page, Activity before) {
  page.activity.set(before);
  page.move();
}

void set_file(Page& page, const char* call, std::string_view path, uint64_t bytes) {
  page.call.set(call);
  page.path.set_end(path);
  page.file_bytes.set(bytes);
}

}  // namespace detail

void moved() {
  if (Page* const own = detail::t_page)
    own->move();
  else if (Page* const page = g_page.load(std::memory_order_relaxed))
    page->other_moves.fetch_add(1, std::memory_order_relaxed);
}

void looked() {
  if (Page* const page = detail::t_page) page->looks.set(page->looks.get() + 1);
}

void set_work(int32_t work, int64_t step, int64_t done) {
  Page* const page = detail::t_page;
  if (page == nullptr) return;
  page->work.set(work);
  page->step.set(step);
  page->done.set(done);
}

void set_pass(Pass pass) {
  Page* const page = detail::t_page;
  if (page == nullptr) return;
  page->pass.set(pass);
  if (pass != Pass::kBackward) page->layer.set(-1);
}

void set_layer(int layer) {
  if (Page* const page = detail::t_page) page->layer.set(layer);
}

void add_micro_batch(double seconds) {
  Page* const page = detail::t_page;
  if (page == nullptr) return;
  page->micro_batch_us.set(page->micro_batch_us.get() + static_cast<int64_t>(seconds * 1e6));
  page->micro_batches.set(page->micro_batches.get() + 1);
}

void set_chip(uint64_t to, uint64_t ended, std::string_view ops) {
  Page* const page = detail::t_page;
  if (page == nullptr) return;
  page->chip_ops.set(ops);
  page->launched.set(to);
  if (page->ended.get() == ended) return;
  page->ended.set(ended);
  page->move();
}

void begin_exchange() {
  if (Page* const page = detail::t_page) page->exchanges.set(page->exchanges.get() + 1);
}

void set_peer(int peer, bool sending) {
  Page* const page = detail::t_page;
  if (page == nullptr) return;
  page->peer.set(peer);
  page->sending.set(sending ? 1 : 0);
}

void set_out(int peer, const Message& message, uint64_t sent) {
  Page::Link* const link = link_of(peer);
  if (link == nullptr) return;
  link->out.set(message);
  link->sent.set(sent);
}

void set_in(int peer, const Message& message, uint64_t received) {
  Page::Link* const link = link_of(peer);
  if (link == nullptr) return;
  link->in.set(message);
  link->received.set(received);
}

}  // namespace ferry::flight
