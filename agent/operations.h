// The methods of the RPC contract, as functions of parsed params: where a byte stream of a datastore meets a store.
#pragma once

#include <memory>
#include <string>

#include "base/job_context.h"
#include "base/json.h"
#include "config/settings.h"
#include "storage/object_store.h"
#include "storage/throttle.h"
#include "strategies/datastores.h"

namespace guestagent {

class Operations {
 public:
  // Everything outlives it.
  Operations(const Settings& settings, ObjectStore& store, Datastore& datastore, DatastoreUpkeep& upkeep, Throttle& throttle,
             Clock& clock);

  // Long, changing; run as jobs. Each answers its result as JSON text.
  std::string get_replication_snapshot(const JsonReader& params, JobContext& job);
  std::string attach_replication_slave(const JsonReader& params, JobContext& job);
  std::string detach_replication_slave(const JsonReader& params, JobContext& job);
  std::string delete_replication_snapshot(const JsonReader& params, JobContext& job);
  std::string cleanup_replication_source(const JsonReader& params, JobContext& job);
  // Long, only reading; run as jobs too, but without the lock.
  std::string verify_replication_snapshot(const JsonReader& params, JobContext& job);
  std::string checksum_tables(const JsonReader& params, JobContext& job);
  // At once.
  std::string list_replication_snapshots();
  std::string get_replication_status();
  std::string get_info(const std::vector<std::string>& methods);

  // Finishes or undoes a job that died: the datastore's part and the store's.
  std::string recover(std::string_view method, JobContext& job);

  // `guestagent cat` and `guestagent restore`.
  void cat(std::string_view href, ByteSink& out, JobContext& job);
  void restore(std::string_view href, const fs::path& to, JobContext& job);

 private:
  const Settings& settings_;
  ObjectStore& store_;
  Datastore& datastore_;
  DatastoreUpkeep& upkeep_;
  Throttle& throttle_;
  Clock& clock_;
};

}  // namespace guestagent
