// The contract of every kind of datastore. The agent drives it, one changing call at a time; the calls that only look
// (describe, status, checksum_tables) may come from other threads meanwhile.
//
// A datastore records what it must be able to undo in the job's journal *before* it does it, and recover() alone undoes
// it: the agent hands the journal there when a job has failed or was cancelled, and after a crash alike. What throws,
// or is dropped, only stops what runs (a child, a thread, a session). Everything throws Error; cancelled when the job
// is.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/job_context.h"
#include "strategies/metadata.h"
#include "strategies/replication_status.h"
#include "stream/byte_stream.h"
#include "stream/piece_source.h"

namespace guestagent {

// What this host has of a snapshot for the next attach of it: a part that an interrupted one left, or all of it.
struct StagedCopy {
  fs::path dir;
  bool ready = false;       // all of it
  std::uint64_t bytes = 0;  // that it takes on the disk
  WallTime last_added;
};

struct ServerDescription {
  bool reachable = false;
  std::string unreachable_because;
  std::string datastore_version;  // "mariadb-10.11.19"
  std::string answers;            // of one that is reachable, for people: "mariadb-10.11.19 answers, server_id 5"
  OwnJson own;                    // by which its engine knows it: members of get_info's `host`
  std::string advertised_address;
  std::uint16_t port = 0;  // 0: not known
  bool has_user_data = false;
  // What a copy of the data would have; its file system's size, and what of that is free. 0: not known.
  std::uint64_t data_bytes = 0, volume_bytes = 0, free_bytes = 0;
  std::map<std::string, std::string> tools;  // name -> version, of those found
  std::vector<StagedCopy> staged;
};

// What a datastore's settings mean for this host, for those who do not know its keys. An empty path is not set.
struct HostNeeds {
  struct Place {
    std::string key;  // of the configuration: "ENGINE.data_dir"
    fs::path path;
  };
  std::string address;                   // where others reach its server
  Place data;                            // the server's: nothing of the agent's may lie in it
  Place staging;                         // where data is received; not set: beside `data`
  std::vector<Place> places;             // the agent's own, beside its state, for this datastore
  std::vector<Place> secrets, readable;  // files that must be closed to others; that must be there
  std::string owner_key, owner;          // the user of this host whom the data and the server's process belong to
  std::string no_answer_hint, no_tools_hint;
};

// A check made before anything is touched, with its own result.
struct Check {
  std::string name;  // "space", "version", …
  enum class Result { ok, warning, failed, skipped } result = Result::ok;
  std::string message;
  std::string hint;
  Code code = Code::failed_precondition;  // what a failed one becomes
};
struct Plan {
  std::vector<Check> checks;
  std::vector<std::string> steps;  // what would be done, in order, in plain words
  // plan_attach: the server has the snapshot's data and can follow its source from where it is: receive and install are
  // left out.
  bool data_is_here = false;
};
// Throws the first failed check's Error; the others' messages follow in its hint. Warnings go to `job`.
void require_passed(const Plan& plan, JobContext& job);

// What the source's side of a snapshot tells, beside the bytes.
struct SourceFacts {
  std::string master_host;
  std::uint16_t master_port = 0;
  std::string datastore_version;
  std::uint64_t dataset_bytes = 0;
  OwnJson data_position;  // of the data
  OwnJson lease_position;
  std::string replication_user;
  Secret replication_password;
  bool require_tls = false;
  std::string set;           // SnapshotMetadata::set
  std::string tool, format;  // "mariadb-backup 10.11.19", "xbstream"
  std::vector<std::string> requires_list;
  std::string server_json;  // what attach must know of the source's server (page size, plugins, …): a JSON object, kept
                            // in the manifest
};

// A copy being taken. Dropping it kills the tool and waits for it; what was made for it (the account, the lease) is
// recover()'s. read() answers 0 only after the tool ended with status 0 and said that it completed.
class SnapshotStream : public ByteSource {
 public:
  virtual std::uint64_t expected_bytes() const = 0;  // an estimate, for progress
  // REQUIRES: read() answered 0. Called once: the tool's own files go with it.
  virtual SourceFacts facts() = 0;
};

struct SnapshotRequest {
  std::string snapshot_id;  // the replication account's name comes from it
};

struct AttachRequest {
  SnapshotMetadata snapshot;
  bool read_only = true;
  OwnJson own;  // what Datastore::read_attach_members made of slave_config
  bool overwrite = false;
  std::optional<bool> keep_previous_data;  // else the setting
  std::optional<Millis> catch_up_timeout;  // else the setting
  bool data_is_here = false;               // for start_replicating, as the Plan said: go on from where the server is
  std::string server_json;                 // for install: SourceFacts::server_json from the manifest; empty: not known
};

// New data that runs on this host while the old is still kept. Without accept(), recover() puts the old data back.
class Installation {
 public:
  virtual ~Installation() = default;
  // The new data is good: the old is removed (or kept, and its place logged).
  virtual void accept() = 0;
};

struct AttachOutcome {
  OwnJson own;  // members of the result
  bool read_only = true;
  bool caught_up = false;  // else: both threads run, but the timeout passed: the verdict is lagging
};

struct DetachRequest {
  std::optional<Millis> drain_timeout;  // else the setting
  bool force = false;
  bool start_applying = false;  // what was received and stands because somebody stopped it is applied
};

struct DetachOutcome {
  OwnJson last_applied;  // a position
  std::vector<std::string> dropped_accounts =
      {};  // those that its source's agent had made, and that came with the data
};

struct TableChecksum {
  std::string table;  // "`db`.`table`" without the quotes: db.table
  std::uint64_t rows = 0;
  std::string digest;
};

class Datastore {
 public:
  virtual ~Datastore() = default;

  // A position of this engine's, as metadata, a manifest or a caller has it: checked, and written anew in the one form
  // that this engine gives it, so that equal ones are equal. Throws the reader's error. Reads nothing but `in`.
  virtual OwnJson read_position(const JsonReader& in) const = 0;

  // Those members of an attach's slave_config that are this engine's own, beside what AttachRequest names; and what
  // they hold in `slave_config`, for AttachRequest::own. Throws the reader's error for a value that cannot be. Reads
  // nothing but its argument.
  virtual std::vector<std::string_view> attach_members() const { return {}; }
  virtual OwnJson read_attach_members(const JsonReader&) const { return {}; }

  // What runs here. Never throws for a server that is down: `reachable` says so.
  virtual ServerDescription describe() = 0;

  // Source: checks, makes the replication account and the lease, reads the lease position, starts the tool.
  virtual Plan plan_snapshot(const SnapshotRequest& request) = 0;
  virtual std::unique_ptr<SnapshotStream> open_snapshot(const SnapshotRequest& request, JobContext& job) = 0;

  // Target: every check that can be made before the first byte is fetched. `server_json` is SourceFacts::server_json
  // from the manifest.
  virtual Plan plan_attach(const AttachRequest& request, const std::string& server_json) = 0;

  // Extracts `stream` into the directory `dir` and prepares it there: complete, verified, fsynced, owned by the
  // server's user. The running server and its data are not touched. `dir` is empty, or has what an earlier call for the
  // same stream got when it was interrupted: then only the rest is fetched. Answers how many bytes of the stream were
  // there already. Also what `guestagent restore` does.
  virtual std::uint64_t receive(PieceSource& stream, const fs::path& dir, JobContext& job) = 0;

  // Switches the server to the data in `dir` (made by receive): stop, exchange, private first start (inherited
  // replication cleared, the agent's own account made again, event scheduler off), normal start. After an Error
  // recover() puts the old data back.
  virtual std::unique_ptr<Installation> install(const AttachRequest& request, const fs::path& dir, JobContext& job) = 0;

  // CHANGE MASTER TO …, both threads running, the source's position of that moment reached (or the timeout passed).
  // After an Error recover() lets a server with data_is_here follow as before.
  virtual AttachOutcome start_replicating(const AttachRequest& request, JobContext& job) = 0;

  // What stop_replicating would check and do. Touches nothing.
  virtual Plan plan_stop(const DetachRequest& request) = 0;

  // Drains and ends replication (DESIGN invariant: no received transaction is lost); after an Error recover() lets the
  // replica go on following.
  virtual DetachOutcome stop_replicating(const DetachRequest& request, JobContext& job) = 0;
};

// Recorded by recover() when it has finished a job rather than undone it. Its data for Undertaking::detach:
// {"last_applied": position}, for Undertaking::release: {"replication_user": name}, for Undertaking::demote:
// {"users": [name, …]}.
inline constexpr std::string_view kFinishedStep = "finished";

// Thrown by recover() when all is right again that others depend on (the server's data, its role, its options) and
// something is left that bars nobody: an account, a directory, a setting. The message names it; it is tried again
// later.
class LeftBehind : public Error {
 public:
  // `done` in words, as recover() answers them.
  LeftBehind(std::string done, const Error& why) : Error(why), done_(std::move(done)) {}
  const std::string& done() const { return done_; }

 private:
  std::string done_;
};

// What a job undertakes, as far as a datastore has a part in it.
enum class Undertaking { snapshot, attach, stage, detach, release, read_only, open_source, demote, other };

// What is there beside the three verbs. Implemented by the same object as the Datastore, told apart so that neither
// grows.
class DatastoreUpkeep {
 public:
  virtual ~DatastoreUpkeep() = default;

  // The verdict is derived, never a guess. A server that does not answer is a status. Only looks: nothing is changed by
  // it, neither on the server nor in the agent's files.
  virtual ReplicationStatus status() = 0;

  // Called from time to time by a daemon, and before a job that changes something: what must be looked after while
  // nobody asks, as leases that have run out. Does nothing, and connects to nothing, where there is nothing of that
  // kind.
  virtual void tend() {}

  // Whether there is something that nobody will go on with any more, and its removal. tidy() only while no job changes
  // anything on this host (the agent holds its lock): what is old may be in use all the same.
  virtual bool tidy_due() { return false; }
  virtual void tidy() {}

  // Where extracted data goes before the switch, outside of the server's data directory, mode 0700: one that an earlier
  // job for the same stream left with a part of it, else a new one, empty.
  virtual fs::path make_staging(const PieceSource::Kind& stream, JobContext& job) = 0;

  // Whether `dir` has a part that receive() of its stream goes on with.
  virtual bool has_part(const fs::path& dir) = 0;

  // `dir`, filled by receive(), stays for an attach of the same stream: receive() into it then only looks whether it is
  // as it was. Cancellable.
  virtual void keep_staged(const fs::path& dir, const PieceSource::Kind& stream, JobContext& job) = 0;

  // What this host has of that stream for a later attach is of no use any more; answers its bytes. REQUIRES: no other
  // job uses it.
  virtual std::uint64_t discard_staged(const PieceSource::Kind& stream, JobContext& job) {
    static_cast<void>(stream), static_cast<void>(job);
    return 0;
  }

  // The one way to undo. After a failure, a cancellation or a crash: finishes or undoes what `journal` says of a job
  // of that kind, so that the server serves old or new data whole and no child, directory or account is left. Answers
  // which in words ("put the old data back"), "" for nothing. Idempotent. A journal with the step "result" (the
  // agent's, recorded before Installation::accept) is of a job that has succeeded: what is left of it is finished,
  // nothing is undone. A job that was past its point of no return is finished too, and has kFinishedStep in its journal
  // then. Also called for a job that failed in this process, after its objects have gone. Throws LeftBehind as told
  // there; any other Error means that nothing else may be changed before it is mended.
  virtual std::string recover(Undertaking what, JobContext& job) = 0;

  // What release_source would do. Touches nothing.
  virtual Plan plan_release(const std::string& replication_user) = 0;

  // Source: drops the replication account and ends its lease. not_found for an account this agent did not make.
  virtual void release_source(const std::string& replication_user, JobContext& job) = 0;

  // Digests of tables at a position (waited for), without blocking writers. Empty `tables`: all user tables.
  virtual std::vector<TableChecksum> checksum_tables(const std::vector<std::string>& tables,
                                                     std::optional<std::uint64_t> sample,
                                                     const std::optional<OwnJson>& at, OwnJson& read_at,
                                                     JobContext& job) = 0;
};

}  // namespace guestagent
