// GET /openapi.json: what the server understands, for programs that make clients and tests of it.
#pragma once

#include <string>

namespace ferry::serve {

/// OpenAPI 3.1. It lists what is honoured; docs/serving.md says the rest.
std::string openapi_json();

}  // namespace ferry::serve
