#include "agent/host_checks.h"

#include <pwd.h>
#include <sys/stat.h>
#include <sys/timex.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>

#include "agent/plans.h"
#include "agent/progress_view.h"
#include "base/secret.h"
#include "config/units.h"
#include "storage/key_files.h"
#include "storage/stores.h"
#include "strategies/datastores.h"
#include "stream/buffer.h"

namespace guestagent {
namespace {

constexpr std::uint64_t kLeastForState = 64 * kMiB;
// Objects are dated in whole seconds.
constexpr double kSkewToSay = 5, kSkewToFail = 300;
// Long before the first release: a clock that says less was never set.
constexpr std::int64_t kOldestPlausible = 1767225600;  // 2026-01-01

fs::path nearest_existing(const fs::path& path) {
  fs::path there = fs::absolute(path);
  while (!fs::exists(there) && there.has_relative_path()) there = there.parent_path();
  return there;
}

void require_writable(const fs::path& path) {
  const fs::path there = nearest_existing(path);
  if (::access(there.c_str(), W_OK | X_OK) != 0) throw system_error("write to " + there.string(), errno);
}

// Whether `place` is `dir` or below it, or will be when it is made.
bool lies_in(const fs::path& place, const fs::path& dir) {
  struct stat wanted = {};
  if (::stat(dir.c_str(), &wanted) != 0) return false;
  std::error_code unresolved;
  fs::path at = fs::weakly_canonical(fs::absolute(place), unresolved);
  if (unresolved) at = fs::absolute(place).lexically_normal();
  for (;; at = at.parent_path()) {
    struct stat there = {};
    if (::stat(at.c_str(), &there) == 0 && there.st_dev == wanted.st_dev && there.st_ino == wanted.st_ino) return true;
    if (at == at.parent_path()) return false;
  }
}

Check warned(Check check) {
  if (check.result == Check::Result::failed) check.result = Check::Result::warning;
  return check;
}

Check passed(std::string name, std::string message) {
  return {std::move(name), Check::Result::ok, std::move(message), "", Code::internal};
}

std::string seconds_text(double seconds) {
  return human_seconds(static_cast<std::uint64_t>(std::llround(std::fabs(seconds))));
}

double since_epoch(WallTime time) {
  return std::chrono::duration<double>(time.time_since_epoch()).count();
}

// [earliest, latest]: this host's clock before and after the object was stored.
Check compare_clocks(double stored, double earliest, double latest) {
  const double skew = stored < earliest - 1 ? stored - earliest : stored > latest + 1 ? stored - latest : 0;
  if (std::fabs(skew) <= kSkewToSay) return passed("store's clock", "agrees with this host's");
  Check check;
  check.name = "store's clock";
  check.result = std::fabs(skew) > kSkewToFail ? Check::Result::failed : Check::Result::warning;
  check.message = "the store is " + seconds_text(skew) + (skew > 0 ? " ahead of" : " behind") + " this host";
  check.hint = "set both by NTP: tokens and signatures of a wrong time are refused";
  return check;
}

}  // namespace

std::vector<Check> check_named_files(const Settings& settings) {
  std::vector<Check> out;
  const auto secret = [&](std::string_view key, const fs::path& file) {
    if (file.empty()) return;
    out.push_back(check_by("secret file", std::string(key) + ": " + file.string() + " is closed to others",
                           [&] { with_context(key, [&] { secret_from_file(file.string()); }); }));
  };
  const auto readable = [&](std::string_view key, const fs::path& file) {
    if (file.empty()) return;
    out.push_back(check_by("certificate", std::string(key) + ": " + file.string() + " is there", [&] {
      if (::access(file.c_str(), R_OK) != 0) throw system_error(std::string(key) + ": " + file.string(), errno);
    }));
  };
  const HostNeeds needs = host_needs(settings);
  for (const HostNeeds::Place& file : needs.secrets) secret(file.key, file.path);
  for (const HostNeeds::Place& file : needs.readable) readable(file.key, file.path);
  const TlsListenSettings& listen = settings.agent.listen;
  if (!listen.address.empty()) {
    readable("agent.listen.certificate", listen.certificate);
    secret("agent.listen.key", listen.key);
    readable("agent.listen.client_ca", listen.client_ca);
    readable("agent.listen.client_crl", listen.client_crl);
  }
  for (const StoreNeeds::File& file : describe_store(settings.storage).files) {
    if (file.secret)
      secret(file.key, file.path);
    else
      readable(file.key, file.path);
  }
  for (const EncryptionSettings::KeyFile& key : settings.snapshot.encryption.keys) {
    out.push_back(check_by("encryption key", "snapshot.encryption.keys: " + key.id + " can be used",
                           [&] { load_keys(settings.snapshot.encryption, key.id); }));
  }
  return out;
}

std::vector<Check> check_own_rights(const Settings& settings) {
  std::vector<Check> out;
  const HostNeeds needs = host_needs(settings);
  const passwd* server_user = ::getpwnam(needs.owner.c_str());
  out.push_back(
      check_by("rights", "the agent runs as " + std::string(::geteuid() == 0 ? "root" : "the server's user"), [&] {
        if (server_user == nullptr) {
          throw Error(Code::failed_precondition, needs.owner_key + ": " + needs.owner + ": there is no such user",
                      "install the server's package, or set it to the user that the server runs as");
        }
        if (::geteuid() == 0 || ::geteuid() == server_user->pw_uid) return;
        throw Error(Code::permission_denied,
                    "uid " + std::to_string(::geteuid()) + " is neither root nor " + needs.owner +
                        ": it may not exchange the server's data",
                    "run it as root (the systemd unit does)");
      }));
  out.push_back(check_by("state", "jobs are kept in " + settings.agent.state_dir.string(),
                         [&] { require_writable(settings.agent.state_dir); }));
  out.push_back(check_by("socket", settings.agent.socket.string() + " can be made",
                         [&] { require_writable(settings.agent.socket.parent_path()); }));
  if (settings.snapshot.spill.max_bytes != 0) {
    out.push_back(check_by("spill", "segments may wait in " + settings.snapshot.spill.dir.string(),
                           [&] { require_writable(settings.snapshot.spill.dir); }));
  }
  out.push_back(check_places_apart(settings));
  return out;
}

Check check_places_apart(const Settings& settings) {
  const HostNeeds needs = host_needs(settings);
  const fs::path& data = needs.data.path;
  const SpillSettings& spill = settings.snapshot.spill;
  const fs::path& staging = needs.staging.path;
  return check_by("places", "none of the agent's places is in " + data.string(), [&] {
    const auto refuse_in_data = [&](std::string_view key, const fs::path& place) {
      if (!lies_in(place, data)) return;
      throw Error(
          Code::failed_precondition,
          std::string(key) + ": " + place.string() + " leads into " + needs.data.key + ", " + data.string() +
              ": the server takes it for a database, and an attach exchanges it with the data",
          "set it to a place outside of the data directory; see where its links lead: realpath " + place.string());
    };
    refuse_in_data("agent.state_dir", settings.agent.state_dir);
    if (spill.max_bytes != 0) refuse_in_data("snapshot.spill.dir", spill.dir);
    if (const auto place = describe_store(settings.storage).place) refuse_in_data(place->key, place->path);
    for (const HostNeeds::Place& place : needs.places) refuse_in_data(place.key, place.path);
    if (staging.empty()) return;
    refuse_in_data(needs.staging.key, staging);
    if (lies_in(data, staging)) {
      throw Error(Code::failed_precondition,
                  needs.staging.key + ": " + staging.string() + " is around " + needs.data.key + ", " + data.string(),
                  "set it to a directory beside the data");
    }
  });
}

std::vector<Check> check_store_round_trip(const Settings& settings, ObjectStore& store) {
  const std::string name = "doctor-" + random_hex(8);  // no snapshot: those are folders
  const std::string where =
      settings.storage.store + " store " + settings.storage.container + "/" + settings.storage.prefix;
  double earliest = 0, latest = 0, stored = 0;
  Check check = check_by("store", where + ": an object was written, read and removed", [&] {
    const Buffer body = Buffer::from("guestagent doctor");
    earliest = since_epoch(std::chrono::system_clock::now());
    store.put(name, body, {});
    latest = since_epoch(std::chrono::system_clock::now());
    try {
      const std::optional<ObjectInfo> info = store.stat(name, {});
      if (!info) throw Error(Code::data_loss, name + ": written, and not there", "the store loses what it confirms");
      if (store.get(name, 4096, {}).text() != body.text())
        throw Error(Code::data_loss, name + ": what was read is not what was written");
      stored = since_epoch(info->modified);
    } catch (const Error&) {
      store.remove(name, {});
      throw;
    }
    store.remove(name, {});
  });
  if (check.result == Check::Result::failed) {
    if (check.hint.empty()) check.hint = "see storage." + settings.storage.store + " in the configuration";
    return {std::move(check),
            {"store's clock", Check::Result::skipped, "the store could not be used", "", Code::internal}};
  }
  return {std::move(check), compare_clocks(stored, earliest, latest)};
}

Check check_answers(const ServerDescription& server, const HostNeeds& needs) {
  return check_by("server", server.answers, [&] {
    if (server.reachable) return;
    throw Error(Code::unavailable, "the server does not answer: " + server.unreachable_because, needs.no_answer_hint);
  });
}

std::vector<Check> check_space(const Settings& settings, const ServerDescription& server) {
  std::vector<Check> out;
  out.push_back(check_by(
      "space for jobs",
      human_bytes(free_bytes(settings.agent.state_dir)) + " free at " + settings.agent.state_dir.string(), [&] {
        const std::uint64_t free = free_bytes(settings.agent.state_dir);
        if (free >= kLeastForState) return;
        throw Error(Code::resource_exhausted, settings.agent.state_dir.string() + ": " + human_bytes(free) + " free",
                    "free space there");
      }));
  const HostNeeds needs = host_needs(settings);
  const fs::path& staging = needs.staging.path.empty() ? needs.data.path : needs.staging.path;
  out.push_back(warned(check_by(
      "space for data",
      human_bytes(free_bytes(staging)) + " free at " + staging.string() + ", the data has " +
          human_bytes(server.data_bytes),
      [&] {
        const std::uint64_t free = free_bytes(staging);
        if (free >= std::max(server.data_bytes, kLeastForState)) return;
        throw Error(
            Code::resource_exhausted,
            staging.string() + ": " + human_bytes(free) + " free, the data has " + human_bytes(server.data_bytes) +
                ": a snapshot of that size could not be attached, since the old data is kept until the new runs",
            "free space, or set " + needs.staging.key + " to a larger file system");
      })));
  if (const SpillSettings& spill = settings.snapshot.spill; spill.max_bytes != 0) {
    out.push_back(
        warned(check_by("space for spill", human_bytes(free_bytes(spill.dir)) + " free at " + spill.dir.string(), [&] {
          const std::uint64_t free = free_bytes(spill.dir);
          if (free >= spill.keep_free_bytes + 4 * settings.snapshot.segment_bytes) return;
          throw Error(Code::resource_exhausted,
                      spill.dir.string() + ": " + human_bytes(free) + " free, of which " +
                          human_bytes(spill.keep_free_bytes) +
                          " are to stay: a slow store would hold the backup tool up, and may fail it",
                      "free space, or set snapshot.spill.dir to a larger file system");
        })));
  }
  if (const auto kept = describe_store(settings.storage).place) {
    const fs::path& place = kept->path;
    out.push_back(
        warned(check_by("space for copies", human_bytes(free_bytes(place)) + " free at " + place.string(), [&] {
          const std::uint64_t free = free_bytes(place);
          if (free >= std::max(server.data_bytes / 2, kLeastForState)) return;
          throw Error(
              Code::resource_exhausted,
              place.string() + ": " + human_bytes(free) + " free, for copies of " + human_bytes(server.data_bytes),
              "delete old snapshots (list_replication_snapshots), or set " + kept->key + " to a larger file system");
        })));
  }
  return out;
}

Check check_clock() {
  Check check = passed("clock", "kept right by the kernel");
  if (since_epoch(std::chrono::system_clock::now()) < double(kOldestPlausible)) {
    check.result = Check::Result::failed;
    check.code = Code::failed_precondition;
    check.message = "this host's clock was never set";
    check.hint = "set it by NTP: tokens, certificates and the dates of snapshots depend on it";
    return check;
  }
  timex now{};
  if (::adjtimex(&now) >= 0 && (now.status & STA_UNSYNC) == 0) return check;
  check.result = Check::Result::warning;
  check.message = "nothing keeps this host's clock right (the kernel calls it unsynchronised)";
  check.hint = "install chrony or systemd-timesyncd; in a container, on its host";
  return check;
}

}  // namespace guestagent
