// What `ferry goodput` projects as a page: plot, tables, all that was assumed, and where each number comes from.
#pragma once

#include <string>
#include <vector>

#include "cluster/projection.h"

namespace ferry::cli {

/// What is beside the plot in words, a line each.
std::vector<std::string> goodput_lines(const cluster::Measured& measured,
                                       const cluster::Published& published,
                                       const std::vector<cluster::AtScale>& scales);

/// HTML that needs nothing else. `svg`: the plot.
std::string goodput_page(const cluster::Measured& measured,
                         const cluster::Published& published,
                         const std::vector<cluster::AtScale>& scales,
                         const std::string& svg);

}  // namespace ferry::cli
