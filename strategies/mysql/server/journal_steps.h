// The steps that this datastore writes into a job's journal: each name once, with who records it, and what it says.
//
// It stands in the first wing, which all others may include. Names and keys are on the disks of hosts whose agent is
// replaced in the middle of a job: a step may be added, none may be renamed. The tables in ARCHITECTURE.md say what a
// crash after each of them leads to. The agent's own steps (job, objects, follow, result) are in agent/ and storage/,
// `finished` is in strategies/datastore.h.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/file.h"
#include "base/journal.h"
#include "base/json.h"

namespace guestagent::mysql::step {

// The snapshot's. All begin with "source.": without one of them recover() has nothing to do there.
inline constexpr std::string_view kBinlog = "source.binlog";  // follow/role_change: the managed file
inline constexpr std::string_view kBinlogDone = "source.binlog.done";
inline constexpr std::string_view kWork = "source.work";          // source/snapshot_source: a place
inline constexpr std::string_view kAccount = "source.account";    // source/source_accounts: user and mark
inline constexpr std::string_view kRelease = "source.release";    // source/source_accounts, of a cleanup: as kAccount
inline constexpr std::string_view kDemote = "source.demote";      // source/source_accounts: the users
inline constexpr std::string_view kWritable = "source.writable";  // server/writable, in pairs
inline constexpr std::string_view kWritableDone = "source.writable.done";
inline constexpr std::string_view kClone = "source.clone";               // copy/clone_copy: a place
inline constexpr std::string_view kClonePlugin = "source.clone_plugin";  // copy/clone_copy

// The attach's.
inline constexpr std::string_view kStaging = "staging";             // mysql_datastore: a place
inline constexpr std::string_view kInstallDrain = "install.drain";  // install/install: threads
inline constexpr std::string_view kInstallBegin = "install.begin";  // install/install: InstallBegin
inline constexpr std::string_view kInstallStop = "install.stop";
inline constexpr std::string_view kSwitchPlan = "switch.plan";  // install/switch_data, which alone reads it
inline constexpr std::string_view kSwitchIn = "switch.in";
inline constexpr std::string_view kSwitchDone = "switch.done";
inline constexpr std::string_view kInstallRecord = "install.record";  // install/install: whether there was one
inline constexpr std::string_view kFirstStart = "first-start";        // install/first_start: a place
inline constexpr std::string_view kInstallStart = "install.start";
inline constexpr std::string_view kInstallDone = "install.done";
// Of its undo.
inline constexpr std::string_view kSwitchBack = "switch.back";
inline constexpr std::string_view kSwitchUndone = "switch.undone";
inline constexpr std::string_view kInstallBack = "install.back";
inline constexpr std::string_view kInstallSettled = "install.settled";

// Replication's.
inline constexpr std::string_view kReplicaStart = "replica.start";  // follow/replica_start, before it changes anything
inline constexpr std::string_view kRepointBegin = "repoint.begin";  // follow/repoint: both sources and the threads
inline constexpr std::string_view kRepointUndone = "repoint.undone";
inline constexpr std::string_view kDetachDrain = "detach.drain";      // follow/replica_stop: threads
inline constexpr std::string_view kDetachOptions = "detach.options";  // follow/role_change: the managed file
inline constexpr std::string_view kDetachEnd = "detach.end";          // follow/replica_stop: the outcome so far
inline constexpr std::string_view kJoinBegin = "join.begin";          // follow/join: WritesBefore
inline constexpr std::string_view kJoinRestart = "join.restart";
inline constexpr std::string_view kJoinRestarted = "join.restarted";
inline constexpr std::string_view kJoinUndone = "join.undone";
inline constexpr std::string_view kReadOnlyBegin = "readonly.begin";  // follow/read_only: WritesBefore
inline constexpr std::string_view kReadOnlyUndone = "readonly.undone";

// A directory that is about to be made.
inline std::string_view place_key(std::string_view step) {
  return step == kWork ? "path" : "dir";
}
inline std::string write_place(std::string_view step, const fs::path& place) {
  return JsonWriter().begin_object().member(place_key(step), place.string()).end_object().text();
}
inline fs::path read_place(const Journal::Step& step) {
  const JsonDocument document = parse_json(step.data, "the journal's " + step.name);
  return JsonReader(document, step.name, Code::data_loss).string(place_key(step.name));
}

// The managed option file as it was; nullopt: there was none.
inline std::string write_managed_before(const std::optional<std::string>& content) {
  return JsonWriter().begin_object().member_or_null("managed_before", content).end_object().text();
}
inline std::optional<std::string> read_managed_before(const Journal::Step& step) {
  const JsonDocument document = parse_json(step.data, "the journal's " + step.name);
  return JsonReader(document, step.name, Code::data_loss).opt_string("managed_before");
}

// How a server took writes.
struct WritesBefore {
  std::optional<std::string> managed;
  bool read_only = false;
  std::optional<bool> scheduler;  // nullopt: it is not touched
};
inline std::string write_writes_before(const WritesBefore& before) {
  JsonWriter out;
  out.begin_object().member_or_null("managed_before", before.managed).member("read_only", before.read_only);
  if (before.scheduler) out.member("scheduler", *before.scheduler);
  return out.end_object().text();
}
inline WritesBefore read_writes_before(const Journal::Step& step) {
  const JsonDocument document = parse_json(step.data, "the journal's " + step.name);
  const JsonReader in(document, step.name, Code::data_loss);
  return {in.opt_string("managed_before"), in.boolean("read_only"), in.opt_boolean("scheduler")};
}

// Which of a replica's threads ran.
struct Threads {
  bool receiving = false, applying = false;
};
inline std::string write_threads(const Threads& threads) {
  JsonWriter out;
  out.begin_object().member("receiving", threads.receiving).member("applying", threads.applying).end_object();
  return out.text();
}
inline Threads read_threads(const Journal::Step& step) {
  const JsonDocument document = parse_json(step.data, "the journal's " + step.name);
  const JsonReader in(document, step.name, Code::data_loss);
  return {in.boolean("receiving"), in.opt_boolean("applying").value_or(true)};
}

struct InstallBegin {
  std::optional<std::string> managed_before;
  bool keep = false;
  std::uint32_t server_id = 0;
};
inline std::string write_install_begin(const InstallBegin& begin) {
  JsonWriter out;
  out.begin_object().member_or_null("managed_before", begin.managed_before).member("keep", begin.keep);
  out.member("server_id", std::uint64_t{begin.server_id}).end_object();
  return out.text();
}
inline InstallBegin read_install_begin(const Journal::Step& step) {
  const JsonDocument document = parse_json(step.data, "the journal's " + step.name);
  const JsonReader in(document, step.name, Code::data_loss);
  return {in.opt_string("managed_before"), in.boolean("keep"),
          static_cast<std::uint32_t>(in.uint("server_id", 1, UINT32_MAX))};
}

}  // namespace guestagent::mysql::step
