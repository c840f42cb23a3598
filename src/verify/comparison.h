// What the device answered beside what the reference did: activations, logits, choices of experts,
// tokens. Fills the report; a wrong choice or token becomes a reason.
#pragma once

#include "verify/serving.h"
#include "verify/verify.h"

namespace ferry::verify {

/// Activations and logits of the pass that was given the reference's routing.
void compare_routed(Report& report, const Probes& probes, const probe::Answers& answers);

/// Whether a token went to other experts than the reference's in any layer.
bool routed_otherwise(const Probes& probes, const probe::Answers& answers);

/// Choices of experts, logits and tokens of the passes that a server makes. `guided`: the same
/// passes with the reference's experts given: from the first token on that went to other experts,
/// what follows is another computation, and these are compared instead. May be `answers` itself
/// where no token did.
void compare_served(Report& report,
                    const Probes& probes,
                    const probe::Answers& answers,
                    const probe::Answers& guided);

}  // namespace ferry::verify
