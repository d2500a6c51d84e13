#include "strategies/mysql/host/server_identity.h"

#include <unistd.h>

#include <array>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/json.h"

namespace guestagent::mysql {
namespace {

constexpr std::string_view kServerId = "server_id";

fs::path kept_file(const fs::path& state_dir) {
  return state_dir / "mysql" / "server_id.json";
}

std::optional<std::string> read_if_there(const fs::path& file) {
  try {
    return read_file(file, 4096);
  } catch (const Error& e) {
    if (e.code() == Code::not_found) return std::nullopt;
    throw;
  }
}

std::string machine_id() {
  for (const char* file : {"/etc/machine-id", "/var/lib/dbus/machine-id"}) {
    if (const auto text = read_if_there(file); text && text->size() >= 32) return text->substr(0, 32);
  }
  std::array<char, 256> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0) throw system_error("reading the host's name", errno);
  return name.data();
}

// FNV-1a: the same on every machine and in every version, which is all that is asked of it.
std::uint32_t hash_of(std::string_view text) {
  std::uint64_t hash = 14695981039346656037ULL;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ULL;
  return static_cast<std::uint32_t>(hash ^ (hash >> 32));
}

}  // namespace

std::uint32_t choose_server_id(const std::optional<std::uint32_t>& asked, std::uint32_t source_id,
                               const fs::path& data_dir, const fs::path& state_dir) {
  if (asked) {
    if (*asked == source_id) {
      throw Error(Code::failed_precondition, "choosing a server_id: " + std::to_string(*asked) + ": the source has it",
                  "choose another slave_config.server_id, or leave it out");
    }
    return *asked;
  }
  if (const auto text = read_if_there(kept_file(state_dir))) {
    const JsonDocument document = parse_json(*text, kept_file(state_dir).string());
    const auto id = static_cast<std::uint32_t>(
        JsonReader(document, kept_file(state_dir).string(), Code::failed_precondition).uint(kServerId, 1, UINT32_MAX));
    if (id != source_id) return id;
  }
  const std::string base = machine_id() + ":" + fs::weakly_canonical(data_dir).string();
  for (unsigned turn = 0;; ++turn) {
    const std::uint32_t id = hash_of(base + (turn == 0 ? "" : "#" + std::to_string(turn)));
    if (id != 0 && id != source_id) return id;
  }
}

std::vector<std::string_view> attach_members() {
  return {kServerId};
}

OwnJson read_attach_members(const JsonReader& slave_config) {
  const auto id = slave_config.opt_uint(kServerId, 1, UINT32_MAX);
  return id ? own_server_id(static_cast<std::uint32_t>(*id)) : OwnJson();
}

std::optional<std::uint32_t> asked_server_id(const OwnJson& own) {
  const JsonDocument document = parse_json(own.text(), "slave_config");
  const auto id = JsonReader(document, "slave_config", Code::internal).opt_uint(kServerId, 1, UINT32_MAX);
  return id ? std::optional(static_cast<std::uint32_t>(*id)) : std::nullopt;
}

OwnJson own_server_id(std::uint32_t id) {
  return OwnJson(JsonWriter().begin_object().member(kServerId, id).end_object().text());
}

void keep_server_id(std::uint32_t id, const fs::path& state_dir) {
  make_dir(kept_file(state_dir).parent_path(), 0755);
  write_file_atomic(kept_file(state_dir), own_server_id(id).text() + "\n");
}

}  // namespace guestagent::mysql
