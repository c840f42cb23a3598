// Ranks that speak to each other within one process and over TCP: what is sent arrives, in order and unharmed;
// what is not expected, harmed, late or from somebody who does not belong here is told, with rank and link.
#include "comm/communicator.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <nlohmann/json.hpp>
#include <numeric>
#include <thread>

#include "base/fault.h"
#include "base/flight_reader.h"
#include "comm/rejoining.h"
#include "comm/rendezvous.h"
#include "comm/socket_communicator.h"

namespace ferry::comm {
namespace {

constexpr double kPatienceS = 60;
using Ranks = std::vector<std::unique_ptr<Communicator>>;

Ranks in_process(int ranks) {
  Result<Ranks> all = local_communicators(ranks);
  EXPECT_TRUE(all) << all.error().message;
  return std::move(*all);
}

/// What a rank is told from outside, and its end of it.
struct Told {
  int ends[2] = {-1, -1};
  std::unique_ptr<Meetings> meetings;
  Told(const Rendezvous& at, int rank) {
    EXPECT_EQ(::pipe(ends), 0);
    meetings = std::make_unique<Meetings>(::dup(at.listener(rank)), ends[0]);
  }
  ~Told() { no_more(); }
  Told(const Told&) = delete;
  Told& operator=(const Told&) = delete;
  void tell(const std::string& text) const {
    EXPECT_EQ(::write(ends[1], text.data(), text.size()), std::ssize(text));
  }
  void no_more() {
    if (ends[1] >= 0) ::close(ends[1]);
    ends[1] = -1;
  }
};

/// As a process meets the others that is told of one meeting.
Result<std::unique_ptr<Communicator>> meet(const Rendezvous& at,
                                           int rank,
                                           const std::string& ticket,
                                           double patience_s) {
  const Told told(at, rank);
  told.tell(ticket + "\n");
  return told.meetings->next(patience_s, {});
}

/// Ranks that found each other as processes do; what is wrong with one is told.
Ranks over_tcp(const Rendezvous& at, const std::vector<std::string>& tickets) {
  Ranks all(tickets.size());
  std::vector<std::thread> threads;
  for (size_t r = 0; r < tickets.size(); ++r)
    threads.emplace_back([&, r] {
      Result<std::unique_ptr<Communicator>> joined =
          meet(at, static_cast<int>(r), tickets[r], kPatienceS);
      EXPECT_TRUE(joined) << joined.error().message;
      if (joined) all[r] = std::move(*joined);
    });
  for (std::thread& t : threads) t.join();
  return all;
}

/// Each rank on a thread of its own; what they throw, in words, by rank.
std::vector<std::string> each(const Ranks& all, const std::function<void(Communicator&)>& does) {
  std::vector<std::string> errors(all.size());
  std::vector<std::thread> threads;
  for (size_t r = 0; r < all.size(); ++r)
    threads.emplace_back([&, r] {
      try {
        does(*all[r]);
      } catch (const LinkError& e) {
        errors[r] = e.what();
      }
    });
  for (std::thread& t : threads) t.join();
  return errors;
}

void expect_that_they_hear_each_other(const Ranks& all) {
  for (const std::string& e : each(all, [](Communicator& c) {
         // More than any socket holds: each sends while it receives.
         const size_t n = 1 << 19;
         std::vector<std::vector<int32_t>> from(static_cast<size_t>(c.ranks()),
                                                std::vector<int32_t>(n));
         std::vector<int32_t> mine(n);
         std::iota(mine.begin(), mine.end(), 1000 * c.rank());
         const std::vector<int32_t> nothing;
         std::vector<int32_t> still_nothing;
         for (int r = 0; r < c.ranks(); ++r) {
           if (r == c.rank()) continue;
           c.send(r, {Purpose::kGradients, 7, 0}, bytes_of(mine));
           c.send(r, {Purpose::kGradients, 7, 1}, bytes_of(nothing));
           c.receive(r, {Purpose::kGradients, 7, 0}, bytes_of(from[static_cast<size_t>(r)]));
           c.receive(r, {Purpose::kGradients, 7, 1}, bytes_of(still_nothing));
         }
         c.finish(kPatienceS);
         for (int r = 0; r < c.ranks(); ++r) {
           if (r == c.rank()) continue;
           std::vector<int32_t> theirs(n);
           std::iota(theirs.begin(), theirs.end(), 1000 * r);
           EXPECT_TRUE(from[static_cast<size_t>(r)] == theirs)
               << "from " << r << " at " << c.rank();
         }
         EXPECT_EQ(c.bytes_sent(), n * 4 * static_cast<uint64_t>(c.ranks() - 1));
         const auto texts = all_gather_texts(
             c, {Purpose::kAgreement}, std::string(static_cast<size_t>(c.rank()), 'x'), kPatienceS);
         for (int r = 0; r < c.ranks(); ++r)
           EXPECT_EQ(texts[static_cast<size_t>(r)], std::string(static_cast<size_t>(r), 'x'));
         EXPECT_FALSE(any_of(c, {Purpose::kStop, 1}, false, kPatienceS));
         EXPECT_TRUE(any_of(c, {Purpose::kStop, 2}, c.rank() == c.ranks() - 1, kPatienceS));
       }))
    EXPECT_EQ(e, "");
}

TEST(Communicator, RanksOfOneProcessHearEachOther) {
  for (const int ranks : {1, 2, 3, 5}) expect_that_they_hear_each_other(in_process(ranks));
}

std::vector<std::string> tickets_of(const Rendezvous& at, int ranks) {
  std::vector<std::string> tickets;
  for (int r = 0; r < ranks; ++r) tickets.push_back(at.ticket(r));
  return tickets;
}

TEST(Communicator, ProcessesHearEachOther) {
  for (const int ranks : {2, 4}) {
    const Result<Rendezvous> at = Rendezvous::open(ranks);
    ASSERT_TRUE(at) << at.error().message;
    expect_that_they_hear_each_other(over_tcp(*at, tickets_of(*at, ranks)));
  }
}

/// A connection to the rank's port from somebody who says this.
int stranger(const Rendezvous& at, int rank, const std::string& says) {
  sockaddr_in address{};
  socklen_t size = sizeof address;
  EXPECT_EQ(::getsockname(at.listener(rank), reinterpret_cast<sockaddr*>(&address), &size), 0);
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  EXPECT_EQ(::connect(fd, reinterpret_cast<const sockaddr*>(&address), size), 0);
  EXPECT_EQ(::send(fd, says.data(), says.size(), MSG_NOSIGNAL), std::ssize(says));
  return fd;
}

TEST(Communicator, StrangersAreTurnedAway) {
  const Result<Rendezvous> at = Rendezvous::open(2);
  ASSERT_TRUE(at) << at.error().message;
  // One who leaves in the middle, one who speaks another protocol, one who says nothing, one who greets
  // as rank 1 would and does not have the key.
  std::string greeting = "FERRYRK2";
  for (const uint32_t word : {1u, 0u, 2u, 0u, 1u, 0u})
    greeting.append(reinterpret_cast<const char*>(&word), sizeof word);
  greeting += std::string(32, 'n');
  ::close(stranger(*at, 0, "FERRYRK2"));
  const std::vector<int> open = {
      stranger(*at, 0, "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + greeting),
      stranger(*at, 0, ""),
      stranger(*at, 0, greeting + std::string(32, 'p'))};
  expect_that_they_hear_each_other(over_tcp(*at, tickets_of(*at, 2)));
  for (const int fd : open) ::close(fd);
}

// As many as are heard at once, and more.
TEST(Communicator, SilentStrangersHoldNobodyUp) {
  for (const int strangers : {30, 200}) {
    const Result<Rendezvous> at = Rendezvous::open(3);
    ASSERT_TRUE(at) << at.error().message;
    std::vector<int> open;
    for (int i = 0; i < strangers; ++i) open.push_back(stranger(*at, i % 2, "FERRY"));
    const auto began = std::chrono::steady_clock::now();
    const Ranks all = over_tcp(*at, tickets_of(*at, 3));
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
    EXPECT_LT(took.count(), kPatienceS / 6) << strangers;
    expect_that_they_hear_each_other(all);
    for (const int fd : open) ::close(fd);
  }
}

TEST(Communicator, AProcessWithoutDescriptorsForItsLinksSaysSo) {
  const Result<Rendezvous> at = Rendezvous::open(2);
  ASSERT_TRUE(at) << at.error().message;
  const Told told(*at, 0);
  told.tell(at->ticket(0) + "\n");
  const int comes = stranger(*at, 0, "FERRY");
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const int next = ::dup(comes);  // the lowest that is free
  ::close(next);
  const rlimit none = {static_cast<rlim_t>(next), before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  const auto met = told.meetings->next(kPatienceS, {});
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  ::close(comes);
  ASSERT_FALSE(met);
  EXPECT_EQ(met.error().code, Code::kExhausted) << met.error().message;
  EXPECT_NE(met.error().message.find("rank 0: a connection to it"), std::string::npos)
      << met.error().message;
}

TEST(Communicator, WhoHasAnotherKeyDoesNotGetIn) {
  const Result<Rendezvous> at = Rendezvous::open(2), other = Rendezvous::open(2);
  ASSERT_TRUE(at && other);
  nlohmann::json ticket = nlohmann::json::parse(at->ticket(1));
  ticket["key"] = nlohmann::json::parse(other->ticket(1))["key"];
  std::string why[2];
  const auto joins = [&](int rank, const std::string& with) {
    const auto joined = meet(*at, rank, with, 1);
    why[rank] = joined ? "" : joined.error().message;
  };
  std::thread second([&] { joins(1, ticket.dump()); });
  joins(0, at->ticket(0));
  second.join();
  EXPECT_NE(why[0].find("rank 1 did not come"), std::string::npos) << why[0];
  EXPECT_NE(why[1].find("rank 0 could not be reached"), std::string::npos) << why[1];
}

TEST(Communicator, TicketsAreChecked) {
  const Result<Rendezvous> at = Rendezvous::open(1);
  ASSERT_TRUE(at) << at.error().message;
  for (const char* ticket : {"no ticket",
                             "{}",
                             R"({"rank": 0, "ports": [1, 2], "key": "KEY"})",
                             R"({"rank": 0, "epoch": 0, "ports": [1, 2], "key": "KEY"})",
                             R"({"rank": 0, "epoch": 1, "ports": [1, 2], "key": "ab"})",
                             R"({"rank": 2, "epoch": 1, "ports": [1, 2], "key": "KEY"})",
                             R"({"rank": 0, "epoch": 1, "ports": [], "key": "KEY"})",
                             R"({"rank": 0, "epoch": 1, "ports": [1, 65536], "key": "KEY"})",
                             R"({"rank": 0, "epoch": 1, "ports": [1, "2"], "key": "KEY"})"}) {
    std::string text = ticket;
    if (const size_t key = text.find("KEY"); key != std::string::npos)
      text.replace(key, 3, std::string(64, 'a'));
    const auto joined = meet(*at, 0, text, 1);
    ASSERT_FALSE(joined) << text;
    EXPECT_NE(joined.error().message.find("ticket"), std::string::npos) << joined.error().message;
  }
}

// Rank 1 is lost before it comes to the first meeting. The others, who wait for it there, go to the second, where its
// successor comes: also the one who was told of that one in two pieces, and he who has yet to come.
TEST(Meetings, ANewerTicketEndsAMeetingThatNeverWas) {
  Result<Rendezvous> at = Rendezvous::open(3);
  ASSERT_TRUE(at) << at.error().message;
  std::vector<std::unique_ptr<Told>> told;
  for (int r = 0; r < 3; ++r) told.push_back(std::make_unique<Told>(*at, r));
  std::vector<std::string> first, second;
  for (int r = 0; r < 3; ++r) first.push_back(at->ticket(r) + "\n");
  at->renew();
  for (int r = 0; r < 3; ++r) second.push_back(at->ticket(r) + "\n");
  for (int r = 0; r < 3; ++r) EXPECT_NE(first[0], second[0]);
  Ranks all(3);
  std::atomic<bool> waits = false;
  const auto meets = [&](size_t r) {
    auto met = told[r]->meetings->next(kPatienceS, [&](int peer) { waits = waits || peer == 1; });
    EXPECT_TRUE(met) << met.error().message;
    if (met) all[r] = std::move(*met);
  };
  told[0]->tell(first[0]);
  told[2]->tell(first[2]);
  std::vector<std::thread> threads;
  threads.emplace_back(meets, 0);
  threads.emplace_back(meets, 2);
  while (!waits) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  told[0]->tell(second[0].substr(0, 20));
  told[1]->tell(first[1] + second[1]);  // the newest counts
  threads.emplace_back(meets, 1);
  told[2]->tell(second[2]);
  told[0]->tell(second[0].substr(20));
  for (std::thread& t : threads) t.join();
  for (const auto& c : all) ASSERT_NE(c, nullptr);
  expect_that_they_hear_each_other(std::move(all));
}

TEST(Meetings, WhoIsToldOfNoFurtherMeetingDoesNotWait) {
  const Result<Rendezvous> at = Rendezvous::open(2);
  ASSERT_TRUE(at);
  Told waiting(*at, 1);
  waiting.tell(at->ticket(1) + "\n");
  std::thread ends([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    waiting.no_more();
  });
  const auto met = waiting.meetings->next(kPatienceS, {});
  ends.join();
  ASSERT_FALSE(met);
  EXPECT_NE(met.error().message.find("no further meeting"), std::string::npos);
}

TEST(Meetings, ATicketOfTheMeetingBeforeIsWorthNothing) {
  Result<Rendezvous> at = Rendezvous::open(2);
  ASSERT_TRUE(at);
  const std::string old = at->ticket(1);
  nlohmann::json forged = nlohmann::json::parse(old);  // the epoch is part of what the key proves
  forged["epoch"] = 2;
  at->renew();
  for (const std::string& ticket : {old, forged.dump()}) {
    std::string why[2];
    const auto joins = [&](int rank, const std::string& with) {
      const auto joined = meet(*at, rank, with, 1);
      why[rank] = joined ? "" : joined.error().message;
    };
    std::thread second([&] { joins(1, ticket); });
    joins(0, at->ticket(0));
    second.join();
    EXPECT_NE(why[0].find("rank 1 did not come"), std::string::npos) << why[0];
    EXPECT_NE(why[1].find("rank 0 could not be reached"), std::string::npos) << why[1];
  }
}

// Everybody hears of a rank that is gone, also who had nothing to do with it; then all go on over other links.
TEST(Rejoining, LinksAreMadeAnewForWhoeverHoldsThem) {
  constexpr int kRanks = 3;
  std::vector<Ranks> epochs;
  for (int e = 0; e < 2; ++e) epochs.push_back(in_process(kRanks));
  std::vector<std::unique_ptr<Rejoining>> all;
  for (size_t r = 0; r < kRanks; ++r) {
    auto joined = Rejoining::begin(
        [&epochs, r, next = size_t{0}](const Waiting&) mutable
        -> Result<std::unique_ptr<Communicator>> { return std::move(epochs.at(next++)[r]); },
        {});
    ASSERT_TRUE(joined) << joined.error().message;
    all.push_back(std::move(*joined));
  }
  std::vector<std::thread> threads;
  for (int r = 0; r < kRanks; ++r)
    threads.emplace_back([&, r] {
      Rejoining& mine = *all[static_cast<size_t>(r)];
      std::vector<int32_t> said = {10 + r}, heard(1);
      try {
        // 1 is lost; 2 hears of it from 0, who closes its links.
        if (r == 0) mine.receive(1, {Purpose::kSquares, 5}, bytes_of(heard));
        if (r == 2) mine.receive(0, {Purpose::kSquares, 5}, bytes_of(heard));
        if (r != 1) mine.finish(kPatienceS);
        EXPECT_EQ(r, 1);
      } catch (const LinkError& e) {
        EXPECT_TRUE(e.gone()) << e.what();
      }
      ASSERT_TRUE(mine.rejoin({}));
      mine.send((r + 1) % kRanks, {Purpose::kNumbers, 6}, bytes_of(std::as_const(said)));
      mine.receive((r + 2) % kRanks, {Purpose::kNumbers, 6}, bytes_of(heard));
      mine.finish(kPatienceS);
      EXPECT_EQ(heard[0], 10 + (r + 2) % kRanks);
      EXPECT_EQ(mine.bytes_sent(), sizeof(int32_t));
    });
  for (std::thread& t : threads) t.join();
}

// Who has nothing more to say is not waited for until his process has ended.
TEST(Rejoining, WhoLeavesIsGoneAtOnceForTheOthers) {
  Ranks ranks = in_process(2);
  std::unique_ptr<Communicator> other = std::move(ranks[1]);
  auto leaves = Rejoining::begin(
      [&](const Waiting&) -> Result<std::unique_ptr<Communicator>> { return std::move(ranks[0]); },
      {});
  ASSERT_TRUE(leaves) << leaves.error().message;
  (*leaves)->leave();
  std::vector<int32_t> heard(1);
  other->receive(0, {Purpose::kSquares, 5}, bytes_of(heard));
  try {
    other->finish(kPatienceS);
    ADD_FAILURE() << "nobody has left";
  } catch (const LinkError& e) {
    EXPECT_TRUE(e.gone()) << e.what();
  }
}

TEST(Communicator, ATextIsHandedToThoseWhoAreToHaveIt) {
  const std::string text(100000, 't');
  std::vector<std::string> got(3);
  const std::vector<std::string> errors = each(in_process(3), [&](Communicator& c) {
    for (const std::string& t : {text, std::string()})
      got[static_cast<size_t>(c.rank())] += hand_text(c,
                                                      {Purpose::kModel},
                                                      1,
                                                      {true, false, false},
                                                      c.rank() == 1 ? t : "",
                                                      kPatienceS,
                                                      100000) +
                                            "|";
  });
  EXPECT_EQ(errors, std::vector<std::string>(3));
  EXPECT_EQ(got, (std::vector<std::string>{text + "||", "||", "||"}));
  const std::vector<std::string> refused = each(in_process(2), [&](Communicator& c) {
    hand_text(c, {Purpose::kModel}, 1, {true, false}, c.rank() == 1 ? text : "", kPatienceS, 99999);
  });
  EXPECT_NE(refused[0].find("rank 1 has 100000 bytes to say; at most 99999"), std::string::npos)
      << refused[0];
}

TEST(Communicator, WhoIsGoneIsNamed) {
  Ranks all = in_process(3);
  const std::vector<std::string> errors = each(all, [&](Communicator& c) {
    if (c.rank() == 1) return all[1].reset();
    std::vector<float> values(1000);
    if (c.rank() == 0) c.receive(1, {Purpose::kWeights, 12, 4}, bytes_of(values));
    c.finish(kPatienceS);
  });
  EXPECT_EQ(errors[0],
            "rank 1 closed its end of the link when rank 0 expected weights of step 12 (number 4, "
            "4000 bytes)");
  EXPECT_EQ(errors[2], "");
}

TEST(Communicator, WhatWasSaidBeforeLeavingIsHeard) {
  Ranks all = in_process(2);
  std::vector<int32_t> heard(1);
  const std::vector<std::string> errors = each(all, [&](Communicator& c) {
    const std::vector<int32_t> last = {41};
    if (c.rank() == 1) {
      c.send(0, {Purpose::kStop, 3}, bytes_of(last));
      c.finish(kPatienceS);
      return all[1].reset();
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    c.receive(1, {Purpose::kStop, 3}, bytes_of(heard));
    c.finish(kPatienceS);
  });
  EXPECT_EQ(errors[0] + errors[1], "");
  EXPECT_EQ(heard[0], 41);
}

TEST(Communicator, WhoIsSilentIsNamedWhileWaitedForAndAtTheEnd) {
  const Ranks all = in_process(2);
  int waited_for = -1;
  all[0]->when_waiting([&](int peer) { waited_for = peer; });
  std::vector<float> values(2);
  all[0]->receive(1, {Purpose::kSquares, 5}, bytes_of(values));
  try {
    all[0]->finish(1.5);
    FAIL() << "nobody spoke, and that was that";
  } catch (const LinkError& e) {
    EXPECT_EQ(e.peer(), 1);
    EXPECT_FALSE(e.gone());
    EXPECT_NE(std::string(e.what()).find("rank 1 was silent for 2 s when rank 0 expected squares"),
              std::string::npos)
        << e.what();
  }
  EXPECT_EQ(waited_for, 1);
}

// poll() takes no more descriptors than the limit has.
TEST(Communicator, ASystemThatTellsOfNoLinkIsNoSilence) {
  const Ranks all = in_process(2);
  std::vector<uint8_t> byte(1);
  all[0]->receive(1, {Purpose::kNumbers, 3}, bytes_of(byte));
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit none = {0, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  std::string said;
  try {
    all[0]->finish(kPatienceS);
  } catch (const LinkError& e) {
    said = e.what();
    EXPECT_EQ(e.peer(), 1);
    EXPECT_FALSE(e.gone());
  }
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_NE(said.find("Invalid argument"), std::string::npos) << said;
}

// What a supervisor makes its verdict of, should the wait never end.
TEST(Communicator, TheFlightRecordSaysWhatIsWaitedForAndWhatEachLinkHasCarried) {
  const Ranks all = in_process(3);
  const flight::Own own;
  const std::vector<std::byte> out(100);
  std::vector<std::byte> in(8);
  all[0]->send(1, {Purpose::kWeights, 12, 1}, out);
  all[0]->receive(1, {Purpose::kGradients, 12, 3}, in);
  flight::Snapshot waits;
  all[0]->when_waiting([&](int peer) {
    EXPECT_EQ(peer, 1);
    waits = own.read(3);
  });
  EXPECT_THROW(all[0]->finish(1.5), LinkError);
  constexpr uint64_t kAround = 24 + 32;  // a header, a digest
  EXPECT_EQ(waits.activity, flight::Activity::kMessages);
  EXPECT_EQ(waits.exchanges, 1u);
  EXPECT_GE(waits.looks, 2u) << "it lives";
  EXPECT_EQ(waits.links[1].in,
            (flight::Message{static_cast<uint32_t>(Purpose::kGradients), 3, 12, 8 + kAround, 0}));
  EXPECT_EQ(waits.links[1].out.purpose, 0u) << "the system has taken it";
  EXPECT_EQ(waits.links[1].sent, 100 + kAround);
  EXPECT_EQ(waits.links[1].received, 0u);
  EXPECT_EQ(waits.links[2].in.purpose, 0u);
  EXPECT_EQ(own.read(3).activity, flight::Activity::kHost) << "it was thrown out of it";
}

TEST(Communicator, AMessageThatTheSystemDoesNotTakeIsStillToBeSent) {
  const Ranks all = in_process(2);
  const flight::Own own;
  const std::vector<std::byte> out(size_t{1} << 24);
  all[0]->send(1, {Purpose::kWeights, 12, 1}, out);
  EXPECT_THROW(all[0]->finish(0.3), LinkError);
  const flight::Snapshot s = own.read(2);
  EXPECT_EQ(s.links[1].out.purpose, static_cast<uint32_t>(Purpose::kWeights));
  EXPECT_GT(s.links[1].out.done, 0u);
  EXPECT_LT(s.links[1].out.done, out.size());
  EXPECT_EQ(s.links[1].out.done, s.links[1].sent);
  EXPECT_EQ(s.peer, 1);
  EXPECT_TRUE(s.sending);
}

TEST(Communicator, ALostLinkIsOneThatHasSentMoreThanArrives) {
  const Ranks all = in_process(2);
  const flight::Own own;
  arm_faults("comm.lose:1:eio");
  const std::vector<std::byte> out(100);
  all[0]->send(1, {Purpose::kStop, 1, 0}, out);
  all[0]->finish(kPatienceS);
  arm_faults("");
  EXPECT_GT(own.read(2).links[1].sent, out.size());
  std::vector<std::byte> in(100);
  all[1]->receive(0, {Purpose::kStop, 1, 0}, in);
  EXPECT_THROW(all[1]->finish(0.2), LinkError) << "nothing came";
}

// What the old link has sent would seem to be on its way to a successor, which has received nothing yet.
TEST(Communicator, NewLinksHaveCarriedNothing) {
  const flight::Own own;
  {
    const Ranks before = in_process(2);
    const std::vector<std::byte> out(100);
    before[0]->send(1, {Purpose::kStop, 1, 0}, out);
    before[0]->finish(kPatienceS);
    EXPECT_GT(own.read(2).links[1].sent, out.size());
  }
  const Ranks after = in_process(2);
  EXPECT_EQ(own.read(2).links[1].sent, 0u);
}

TEST(Communicator, AnotherMessageThanExpectedIsNotTakenForIt) {
  const struct {
    Tag tag;
    size_t floats;
  } others[] = {{{Purpose::kWeights, 5, 0}, 2},
                {{Purpose::kGradients, 6, 0}, 2},
                {{Purpose::kGradients, 5, 1}, 2},
                {{Purpose::kGradients, 5, 0}, 3}};
  for (const auto& other : others) {
    const std::vector<std::string> errors = each(in_process(2), [&](Communicator& c) {
      std::vector<float> values(c.rank() == 1 ? other.floats : 2);
      if (c.rank() == 1)
        c.send(0, other.tag, bytes_of(std::as_const(values)));
      else
        c.receive(1, {Purpose::kGradients, 5, 0}, bytes_of(values));
      c.finish(kPatienceS);
    });
    EXPECT_NE(errors[0].find("rank 1 sent " + to_string(other.tag)), std::string::npos)
        << errors[0];
    EXPECT_NE(errors[0].find("expected gradients of step 5"), std::string::npos) << errors[0];
  }
}

/// A link whose other end is in the test's hands.
struct OpenLink {
  std::unique_ptr<Communicator> rank;
  int other = -1;
  explicit OpenLink(uint8_t key_byte) {
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    Digest key{};
    key.fill(key_byte);
    std::vector<Link> links(2);
    links[1] = {ends[0], key, key};
    rank = socket_communicator(0, std::move(links));
    other = ends[1];
  }
  ~OpenLink() { ::close(other); }
  OpenLink(const OpenLink&) = delete;
  OpenLink& operator=(const OpenLink&) = delete;
};

constexpr Tag kNumbersTag{Purpose::kNumbers, 5, 0};

/// The bytes of the message that says 7, by who has this key.
std::string message_of(uint8_t key_byte) {
  OpenLink link(key_byte);
  const std::vector<int32_t> numbers = {7};
  link.rank->send(1, kNumbersTag, bytes_of(numbers));
  link.rank->finish(kPatienceS);
  char buffer[256];
  const ssize_t n = ::read(link.other, buffer, sizeof buffer);
  EXPECT_GT(n, 0);
  return {buffer, static_cast<size_t>(std::max<ssize_t>(0, n))};
}

/// What a rank with this key makes of these bytes, where it expects so many messages that say 7.
std::string made_of(const std::string& bytes, uint8_t key_byte, size_t messages) {
  OpenLink link(key_byte);
  EXPECT_EQ(::write(link.other, bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  std::vector<std::vector<int32_t>> numbers(messages, std::vector<int32_t>(1));
  for (std::vector<int32_t>& n : numbers) link.rank->receive(1, kNumbersTag, bytes_of(n));
  try {
    link.rank->finish(kPatienceS);
  } catch (const LinkError& e) {
    return e.what();
  }
  for (const std::vector<int32_t>& n : numbers) EXPECT_EQ(n[0], 7);
  return "believed";
}

TEST(Communicator, AMessageIsBoundToItsKeyAndItsPlace) {
  const std::string said = message_of(1);
  EXPECT_EQ(made_of(said, 1, 1), "believed");
  EXPECT_NE(made_of(said, 2, 1), "believed");         // of another key
  EXPECT_NE(made_of(said + said, 1, 2), "believed");  // said once, heard twice
}

TEST(Communicator, HarmedBytesAreTold) {
  arm_faults("comm.receive:2:eio");
  const std::vector<std::string> errors = each(in_process(2), [](Communicator& c) {
    std::vector<float> values(9, 1);
    for (uint32_t i = 0; i < 2; ++i) {
      if (c.rank() == 1)
        c.send(0, {Purpose::kGradients, 5, i}, bytes_of(std::as_const(values)));
      else
        c.receive(1, {Purpose::kGradients, 5, i}, bytes_of(values));
    }
    c.finish(kPatienceS);
  });
  arm_faults("");
  EXPECT_NE(errors[0].find("rank 1 sent a message whose bytes are not those that were hashed when "
                           "rank 0 expected gradients of step 5 (number 1"),
            std::string::npos)
      << errors[0];
}

}  // namespace
}  // namespace ferry::comm
