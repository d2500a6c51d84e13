#include "strategies/mysql/follow/role_change.h"

#include "base/error.h"
#include "strategies/mysql/follow/replica_start.h"
#include "strategies/mysql/host/option_file.h"
#include "strategies/mysql/host/work_places.h"
#include "strategies/mysql/server/journal_steps.h"
#include "strategies/mysql/server/server_client.h"

namespace guestagent::mysql {
namespace {

void record_options(const MysqlSettings& settings, std::string_view name, Journal& journal) {
  journal.record(name, step::write_managed_before(managed_content(settings.managed_file)));
}

void restore_options(const MysqlSettings& settings, const Journal::Step& before) {
  put_managed(settings.managed_file, step::read_managed_before(before));
}

}  // namespace

std::optional<std::string> managed_content(const fs::path& file) {
  try {
    return read_file(file);
  } catch (const Error& e) {
    if (e.code() == Code::not_found) return std::nullopt;
    throw;
  }
}

void require_managed_file_read(const MysqlSettings& settings) {
  for (const Check& check : check_option_files(settings)) {
    if (check.result == Check::Result::failed) throw Error(check.code, check.message, check.hint);
  }
}

ManagedOptions standalone_options(const MysqlSettings& settings, ServerClient& client) {
  ManagedOptions options;
  if (const auto now = read_managed(settings.managed_file)) {
    options = *now;
  } else {
    const ServerIdentity identity = client.identity();
    options.server_id = identity.server_id;
    options.log_bin = identity.log_bin && !identity.log_bin_basename.empty() ? identity.log_bin_basename : "binlog";
  }
  options.role = ReplicationRole::standalone;
  options.read_only = false;
  return options;
}

ManagedOptions options_as_replica(const MysqlSettings& settings, const AttachRequest& request, std::uint32_t server_id,
                                  const ServerIdentity& identity, const Dialect& dialect) {
  ManagedOptions options;
  options.role = ReplicationRole::replica;
  options.server_id = server_id;
  options.read_only = request.read_only;
  // DISABLED can be said by an option file alone, so the one that says so is left to hold again.
  if (!identity.event_scheduler_disabled) options.scheduler_before = identity.event_scheduler;
  // Attached again, or told to refuse writes: what counts is how it was before the first time.
  if (const auto before = read_managed(settings.managed_file);
      before && (before->role == ReplicationRole::replica || before->refuses_writes())) {
    options.scheduler_before = before->scheduler_before;
  }
  options.report_host = settings.advertised_address;
  options.report_port = settings.advertised_port.value_or(identity.port);
  options.log_bin = identity.log_bin && !identity.log_bin_basename.empty() ? identity.log_bin_basename : "binlog";
  options.relay_log = identity.relay_log_basename.empty() ? "relay-bin" : identity.relay_log_basename;
  options.mixed_binlog = identity.binlog_format == "STATEMENT";
  options.mysql_gtid = dialect.gtid == GtidKind::mysql && told_gtid(request.snapshot).has_value();
  if (work_dir(settings.data_dir).parent_path() == fs::canonical(settings.data_dir)) options.hidden_dir = kHiddenDir;
  return options;
}

RoleChange role_change(const MysqlSettings& settings, JobContext& job) {
  RoleChange role;
  role.become_standalone = [&settings, &job](ServerClient& client) {
    require_managed_file_read(settings);
    const ManagedOptions options = standalone_options(settings, client);
    if (job.journal().find(step::kDetachOptions) == nullptr)
      record_options(settings, step::kDetachOptions, job.journal());
    put_managed(settings.managed_file, write_managed(options, client.dialect()));
  };
  role.stay_replica = [&settings, &job](ServerClient&) {
    if (const Journal::Step* before = job.journal().find(step::kDetachOptions)) restore_options(settings, *before);
  };
  return role;
}

void restore_scheduler(const MysqlSettings& settings) {
  const auto options = read_managed(settings.managed_file);
  if (!options || options->role != ReplicationRole::standalone || !options->scheduler_before) return;
  ServerClient(local_target(settings)).set_event_scheduler(*options->scheduler_before);
}

void turn_on_binlog(const MysqlSettings& settings, ServerControl& control, JobContext& job) {
  require_managed_file_read(settings);
  ManagedOptions options;
  std::string text;
  {
    ServerClient client(local_target(settings));
    const ServerIdentity identity = client.identity();
    options.role = ReplicationRole::source;
    options.server_id = identity.server_id != 0 ? identity.server_id : 1;
    options.log_bin = "binlog";
    options.mysql_gtid = client.dialect().gtid == GtidKind::mysql && settings.replication == "gtid";
    text = write_managed(options, client.dialect());
  }
  record_options(settings, step::kBinlog, job.journal());
  control.stop(settings.server.stop_timeout);
  put_managed(settings.managed_file, text);
  control.start(settings.server.start_timeout, job.stop_token());
  job.journal().record(step::kBinlogDone);
}

std::string recover_turn_on_binlog(const MysqlSettings& settings, ServerControl& control, JobContext& job) {
  const Journal::Step* before = job.journal().find(step::kBinlog);
  if (before == nullptr || job.journal().find(step::kBinlogDone) != nullptr) return "";
  control.stop(settings.server.stop_timeout);
  restore_options(settings, *before);
  control.start(settings.server.start_timeout);
  job.journal().record(step::kBinlogDone);
  return "started the server with its options as they were";
}

}  // namespace guestagent::mysql
