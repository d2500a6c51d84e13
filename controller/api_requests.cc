#include "controller/api_requests.h"

#include "base/text.h"
#include "controller/agent_address.h"

namespace guestagent::controller {
namespace {

constexpr std::uint64_t kMostReplicas = 1000;
constexpr std::size_t kLongestText = 255;

std::string short_text(const JsonReader& in, std::string_view key) {
  const auto value = in.opt_string(key);
  if (value && value->size() > kLongestText) throw in.error(key, "is longer than 255 bytes");
  return value.value_or("");
}

// A flavor is a reference: text, or a number as some clients send it.
std::string flavor(const JsonReader& in) {
  const auto member = in.value().FindMember("flavorRef");
  if (member != in.value().MemberEnd() && member->value.IsUint64()) return std::to_string(member->value.GetUint64());
  return short_text(in, "flavorRef");
}

HostTemplate read_host(const JsonReader& in) {
  HostTemplate out;
  out.flavor = flavor(in);
  out.availability_zone = short_text(in, "availability_zone");
  if (const auto volume = in.opt_object("volume")) {
    volume->allow_only({"size"});
    out.volume_size = volume->uint("size", 1, 1 << 30);
  }
  if (const JsonValue* nics = in.array("nics")) {
    for (auto nic = nics->Begin(); nic != nics->End(); ++nic) {
      if (!nic->IsObject()) throw in.error("nics", "must be an array of objects");
    }
    out.nics = to_json(*nics);
  }
  return out;
}

bool good_id(const std::string& id) {
  if (id.empty() || id.size() > 64) return false;
  for (const char c : id) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (!letter && (&c == id.data() || (c != '-' && c != '_' && c != '.'))) return false;
  }
  return true;
}

}  // namespace

std::string action_name(const JsonDocument& body, std::initializer_list<std::string_view> known) {
  const JsonReader in(body, "body");
  in.allow_only(known);
  if (body.MemberCount() != 1) {
    throw Error(Code::invalid_argument, "body: must have exactly one of " + join(std::vector<std::string_view>(known)));
  }
  return body.MemberBegin()->name.GetString();
}

ReplicateBody read_replicate(const JsonValue& replicate) {
  const JsonReader in(replicate, "replicate");
  in.allow_only({"count", "instance", "topology", "overwrite"});
  ReplicateBody out;
  out.count = static_cast<int>(in.opt_uint("count", 1, kMostReplicas).value_or(1));
  out.overwrite = in.opt_boolean("overwrite").value_or(false);
  if (const auto instance = in.opt_object("instance")) {
    for (const char* unsupported : {"datastore_version", "databases", "users"}) {
      if (instance->has(unsupported))
        throw instance->error(unsupported, "not supported for a replica: it is the source's");
    }
    instance->allow_only({"availability_zone", "flavorRef", "volume", "nics", "name"});
    out.host = read_host(*instance);
    out.name = short_text(*instance, "name");
  }
  if (const auto topology = in.opt_object("topology")) {
    topology->allow_only({"slave_of", "read_only"});
    out.topology.read_only = topology->opt_boolean("read_only").value_or(true);
    if (const JsonValue* sources = topology->array("slave_of")) {
      if (sources->Size() != 1) throw topology->error("slave_of", "must name exactly one instance");
      const JsonReader source((*sources)[0], topology->path() + ".slave_of[0]");
      source.allow_only({"id"});
      out.topology.slave_of = source.string("id");
    }
  }
  return out;
}

DetachOptions read_detach(const JsonValue& detach) {
  const JsonReader in(detach, "detach");
  in.allow_only({"force", "drain_timeout_s"});
  return {in.opt_boolean("force").value_or(false), in.opt_uint("drain_timeout_s")};
}

RegisterBody read_register(const JsonDocument& body, const AgentAccessSettings& agents) {
  const JsonReader outer(body, "body");
  const bool wrapped = outer.has("instance");
  if (wrapped) outer.allow_only({"instance"});
  const JsonReader in = wrapped ? outer.object("instance") : outer;
  in.allow_only({"address", "id", "name", "availability_zone", "flavorRef", "volume", "nics", "pool"});
  RegisterBody out;
  out.instance.address = in.string("address");
  agent_address(out.instance.address, agents);
  out.instance.id = in.opt_string("id").value_or("");
  if (!out.instance.id.empty() && !good_id(out.instance.id)) {
    throw in.error("id", "must be 1 to 64 letters, digits, '-', '_' and '.', beginning with a letter or digit");
  }
  out.instance.name = short_text(in, "name");
  out.instance.host = read_host(in);
  out.pool = in.opt_boolean("pool");
  return out;
}

}  // namespace guestagent::controller
