// Paths that people give where a model directory is meant, and what a directory that is not whole
// lacks: what it is, and where the right path lies. For messages alone; nothing is opened by this.
#pragma once

#include <string>
#include <vector>

namespace ferry {

/// What lies at `path` instead of a model directory (nothing, a file, the hub's cache of a model, a
/// run, a dataset, an adapter ...) and the path that was meant, as far as it can be told: the end of
/// a message that begins with the path. Never empty.
std::string instead_of_model_dir(const std::string& path);

/// The command that makes a model directory, DIR, of a GGUF file.
std::string command_to_convert(const std::string& gguf);

/// Why a model directory's file may be missing: a link into the hub's cache that leads nowhere, a
/// download that was not finished, weights in another format. Begins with "; " or is empty.
std::string why_missing(const std::string& folder, const std::string& name);

/// Why a tensor of a model is not among the names of its files, as far as it can be told: a prefix that
/// a wrapper left, scales of another way of quantising. Begins with "; " or is empty.
std::string why_no_tensor(const std::vector<std::string>& names, const std::string& name);

}  // namespace ferry
