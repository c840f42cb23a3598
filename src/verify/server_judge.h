// How far a server's answers are from the reference: pure functions of what it said and of what the
// reference thinks. They know no server and no model.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "verify/server_reference.h"

namespace ferry::verify {

/// What a server said of one place in a text.
struct Seen {
  int64_t at = 0;                  // the token's place: it was predicted after the token before
  int32_t id = 0;                  // the token that stands there
  std::optional<double> log_prob;  // that the server gave it
  std::vector<std::pair<int32_t, double>> top;  // and others
  bool greedy = false;                          // the server chose it as the most probable one
};

/// One request and what came of it.
struct Exchange {
  std::string what;           // for people: "a sentence in English"
  std::vector<int32_t> text;  // prompt and answer
  int64_t prompt = 0;         // tokens of the prompt
  std::vector<Seen> seen;
  bool unshown = false;  // neither text nor thoughts, and yet there is something that should be
  bool stopped = false;  // the server says that the model ended the answer, after text's last token
};

/// The ids that the reference is asked about at a place that was seen.
std::vector<int32_t> ids_of(const Seen& seen);

/// KL(reference || server) at one place, in nats, over the tokens that the server names and all
/// others together: what is at least between them. Nothing where it gives no log-probability.
std::optional<double> divergence(const Seen& seen, const Thought& reference);

/// How close answers are to a reference.
struct Closeness {
  int64_t compared = 0;  // places with log-probabilities
  double kl_mean = 0, kl_max = 0;
  /// The mean without the tenth of places that are worst: routers of experts at a near tie part for
  /// honest reasons, and then far.
  double kl_typical = 0;
  int64_t tokens = 0;  // that the server chose as the most probable ones
  int64_t other = 0;   // of these: those that the reference holds less probable than its best
  int64_t wrong = 0;   // of these: by more than the margin that rounding explains
  int64_t against_itself = 0;  // of these: where the server's own numbers prefer another token, too
  double margin_max = 0;       // the largest of these margins
  double log_chance = 0;   // log of the probability that the tokens are drawn from the reference
  std::vector<double> kl;  // of each place that was compared
};

/// `thoughts`: of each exchange, of each place seen; a place without a thought is left out.
Closeness closeness(std::span<const Exchange> exchanges,
                    std::span<const std::vector<std::optional<Thought>>> thoughts,
                    double margin);

/// What rounding does to this model: the distance of its answers, computed in another way, from
/// those of the reference, at the places that a server was asked about.
struct Noise {
  double kl = 0;  // as kl_typical
  double kl_max = 0;
  double margin = 0;          // by how much two log-probabilities may change places
  std::vector<double> kl_of;  // of each exchange alone, as kl
};
Noise noise(std::span<const Exchange> exchanges,
            std::span<const std::vector<std::optional<Thought>>> reference,
            std::span<const std::vector<std::optional<Thought>>> rounded);

/// kl_typical up to which numbers are within rounding. The reference is exact, so an honest server is
/// as far from it as the noise is: twice that, because others round in more places, squared because
/// KL grows with the square; and what servers lose that print few digits.
double kl_bound(const Noise& noise);

/// The exchanges that are not within rounding by themselves, each with those places alone that tell so: of its
/// prompt or of its answer most are beyond four times the bound, its own and that of all. (A near tie moves
/// single places. One whole answer in ten is the tenth that `kl_typical` leaves out.)
std::vector<Exchange> strays(std::span<const Exchange> exchanges,
                             std::span<const std::vector<std::optional<Thought>>> thoughts,
                             const Noise& noise);

/// Whether the server's numbers are what a penalty of repeated tokens makes of the reference's: at the
/// places of its answers, tokens that stand in the text before are too improbable by more than the margin,
/// and all others are right among themselves. (What a penalty takes from some, all others share.)
bool penalises(std::span<const Exchange> exchanges,
               std::span<const std::vector<std::optional<Thought>>> reference,
               double margin);

/// From which place of a text on numbers leave the bound although those before are within it: the
/// text is garbled from there on. Nothing where there is no such place. `kl`: of places in order.
std::optional<size_t> parts_from(std::span<const double> kl, double bound);

}  // namespace ferry::verify
