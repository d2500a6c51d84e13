#include "strategies/mysql/mysql_roles.h"

#include <algorithm>

#include "base/error.h"
#include "strategies/mysql/follow/positions.h"
#include "strategies/mysql/follow/read_only.h"
#include "strategies/mysql/follow/role_change.h"
#include "strategies/mysql/host/option_file.h"
#include "strategies/mysql/host/set_mark.h"
#include "strategies/mysql/source/snapshot_checks.h"
#include "strategies/mysql/source/snapshot_source.h"

namespace guestagent::mysql {
namespace {

constexpr std::size_t kOpenPasswordLength = 32;
// A source learns that a replica has left it when it next sends to it, at the latest by a heartbeat, which our replicas
// ask for every 5 s (NewSource::heartbeat_s).
constexpr Seconds kGoneAfter{15};
constexpr Millis kGonePoll{250};

Check answers(ServerClient& client) {
  try {
    return {"server", Check::Result::ok, client.version().text() + " answers", "", Code::failed_precondition};
  } catch (const Error& e) {
    return {"server", Check::Result::failed, e.what(), e.hint(), e.code()};
  }
}

}  // namespace

MysqlRoles::MysqlRoles(const Settings& settings, Clock& clock)
    : settings_(settings.mysql),
      state_dir_(settings.agent.state_dir),
      clock_(clock),
      accounts_(settings_, settings.agent.state_dir, clock) {}

Plan MysqlRoles::plan_read_only(const ReadOnlyRequest& request) {
  Plan plan;
  ServerClient client(local_target(settings_));
  plan.checks.push_back(answers(client));
  if (plan.checks.back().result == Check::Result::failed) return plan;
  for (Check& check : check_option_files(settings_)) plan.checks.push_back(std::move(check));
  if (!request.read_only) {
    const bool replica = !client.replica_status().empty();
    plan.checks.push_back({"role", replica ? Check::Result::warning : Check::Result::ok,
                           replica ? "it is a replica: what is written here is not on its source" : "it follows nobody",
                           "", Code::failed_precondition});
    plan.steps = {"take writes again, now and after the server's next start"};
    return plan;
  }
  const std::vector<std::string> pass = client.who_passes_read_only();
  std::string names;
  for (const std::string& each : pass) names += (names.empty() ? "" : ", ") + each;
  plan.checks.push_back(
      {"writers", pass.empty() ? Check::Result::ok : Check::Result::warning,
       pass.empty() ? "nobody but replication may write then" : "read_only does not hold back " + names,
       pass.empty() ? "" : "take SUPER and READ_ONLY ADMIN from accounts that applications use",
       Code::failed_precondition});
  plan.steps = {"wait for the transactions that write now",
                std::string("refuse writes") + (request.force ? ", and end the sessions of what still writes" : ""),
                "write " + settings_.managed_file.string() + ", so that it stays so after a restart"};
  if (!pass.empty()) plan.steps.push_back("end the sessions of " + names);
  return plan;
}

ReadOnlyOutcome MysqlRoles::set_read_only(const ReadOnlyRequest& request, JobContext& job) {
  return change_read_only(settings_, request, job, clock_);
}

ReplicationPlace MysqlRoles::place() {
  ServerClient client(local_target(settings_));
  return place_of(client);
}

void MysqlRoles::wait_for(const OwnJson& position, Millis timeout, JobContext& job) {
  ServerClient client(local_target(settings_));
  wait_for_position(client, position_of(position), timeout, job, clock_);
}

Plan MysqlRoles::plan_open_source() {
  Plan plan;
  ServerClient client(local_target(settings_));
  check_followed(settings_, client, plan.checks);
  plan.steps = {"make a replication account, and keep the binary logs from now on"};
  return plan;
}

SourceFacts MysqlRoles::open_source(const std::string& id, JobContext& job) {
  job.phase("check");
  Plan plan = plan_open_source();
  require_passed(plan, job);
  job.phase("prepare source");
  ServerClient client(local_target(settings_));
  const ServerIdentity server = client.identity();
  SourceFacts facts;
  facts.replication_password = random_password(kOpenPasswordLength);
  facts.require_tls = account_requires_tls(settings_, server);
  // Before the account is made: a replica of another source of the set may be there already, but not further.
  Position here = client.binlog_status().position;
  if (server.gtid_on) here.gtid = client.gtid_known();
  facts.data_position = facts.lease_position = own(here);
  facts.replication_user = accounts_.make(client, id, facts.replication_password, facts.require_tls, job).user;
  facts.set = set_of_source(state_dir_);
  facts.master_host = settings_.advertised_address;
  facts.master_port = settings_.advertised_port.value_or(server.port);
  facts.datastore_version = server.version.text();
  return facts;
}

Plan MysqlRoles::plan_demote(bool force) {
  Plan plan;
  ServerClient client(local_target(settings_));
  plan.checks.push_back(answers(client));
  if (plan.checks.back().result == Check::Result::failed) return plan;
  std::string connected;
  for (const SourceAccount& account : accounts_.list()) {
    plan.steps.push_back("drop the account " + account.user + " and end its lease");
    if (!client.dump_threads(account.user).empty()) connected += (connected.empty() ? "" : ", ") + account.user;
  }
  plan.checks.push_back({"replicas",
                         connected.empty() ? Check::Result::ok
                         : force           ? Check::Result::warning
                                           : Check::Result::failed,
                         connected.empty() ? "no replica is connected by an account of the agent's"
                                           : "replicas are connected by " + connected,
                         connected.empty() ? "" : "let them follow another source first; force: true cuts them off",
                         Code::failed_precondition});
  return plan;
}

std::vector<std::string> MysqlRoles::demote_source(bool force, JobContext& job) {
  ServerClient client(local_target(settings_));
  const auto connected = [&] {
    const auto accounts = accounts_.list();
    return std::any_of(accounts.begin(), accounts.end(),
                       [&](const SourceAccount& account) { return !client.dump_threads(account.user).empty(); });
  };
  const SteadyTime deadline = clock_.steady() + kGoneAfter;
  while (!force && connected() && clock_.steady() < deadline) {
    job.check_cancelled();
    clock_.sleep(kGonePoll, job.stop_token());
  }
  require_passed(plan_demote(force), job);
  return accounts_.release_all(client, job);
}

}  // namespace guestagent::mysql
