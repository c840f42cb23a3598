// The projected goodput over the number of chips, a line for each published rate of failures, with what others have
// published of theirs beside it, marked as theirs.
#pragma once

#include <string>

#include "cluster/projection.h"

namespace ferry::cluster {

/// SVG that needs nothing else. Pure. check: 0 < low < high, numbers of chips.
std::string goodput_svg(const Measured& measured,
                        const Published& published,
                        double low,
                        double high);

/// "10,000".
std::string with_commas(double whole);

}  // namespace ferry::cluster
