// The bodies of the API's requests, read strictly. Every mistake is invalid_argument and names its path.
#pragma once

#include <string>

#include "base/json.h"
#include "controller/state.h"
#include "controller/task_manager.h"

namespace guestagent::controller {

struct ReplicateBody {
  int count = 1;
  HostTemplate host;
  std::string name;
  ReplicaTopology topology;
  bool overwrite = false;
};

// The only member of an action's body: {"replicate": {…}}, {"detach": {}}. `known`: what may stand there.
std::string action_name(const JsonDocument& body, std::initializer_list<std::string_view> known);

// {"count", "instance": {"availability_zone", "flavorRef", "volume": {"size"}, "nics", "name"}, "topology":
// {"slave_of", "read_only"}, "overwrite"}
ReplicateBody read_replicate(const JsonValue& replicate);
// {"force", "drain_timeout_s"}; the design's is empty.
DetachOptions read_detach(const JsonValue& detach);
// {"instance": {…}} or the inner object alone: "address", "id", "name", "availability_zone", "flavorRef",
// "volume": {"size"}, "nics", "pool" (may it be taken for a replica; when absent, by whether it has data).
struct RegisterBody {
  NewInstance instance;
  std::optional<bool> pool;
};
RegisterBody read_register(const JsonDocument& body, const AgentAccessSettings& agents);

}  // namespace guestagent::controller
