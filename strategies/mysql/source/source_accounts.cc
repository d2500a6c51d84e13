#include "strategies/mysql/source/source_accounts.h"

#include <algorithm>

#include "base/json.h"
#include "base/log.h"
#include "strategies/datastore.h"
#include "strategies/mysql/server/journal_steps.h"
#include "strategies/mysql/server/writable.h"
#include "stream/digest.h"

namespace guestagent::mysql {
namespace {

constexpr std::string_view kUserPrefix = "repl_";
constexpr std::string_view kHeld = "0";  // a purge setting under the lease: never by itself
constexpr std::size_t kMaxStateFile = 64 * 1024;
constexpr std::size_t kMarkLength = 16;

bool is_held(const std::string& value) {
  return value.find_first_not_of("0.") == std::string::npos;
}

std::string write_account(const SourceAccount& account) {
  JsonWriter out;
  out.begin_object();
  out.member("user", account.user).member("host", account.host).member("snapshot_id", account.snapshot_id);
  out.member("created_at", account.created_at)
      .member("last_seen", account.last_seen)
      .member("mark", account.mark)
      .member("lease", account.lease);
  out.end_object();
  return out.text();
}

using Values = std::vector<std::pair<std::string, std::string>>;

std::string write_lease(const Values& values) {
  JsonWriter out;
  out.begin_object().key("settings").begin_object();
  for (const auto& [name, value] : values) out.member(name, value);
  out.end_object().end_object();
  return out.text();
}

Values read_lease(const fs::path& file) {
  const JsonDocument document = parse_json(read_file(file, kMaxStateFile), file.string());
  const JsonReader in(document, file.string(), Code::data_loss);
  const JsonReader settings = in.object("settings");
  Values out;
  for (const auto& member : settings.value().GetObject()) {
    const std::string name(member.name.GetString(), member.name.GetStringLength());
    out.emplace_back(name, settings.string(name));
  }
  return out;
}

std::string write_step(const SourceAccount& account) {
  return JsonWriter().begin_object().member("user", account.user).member("mark", account.mark).end_object().text();
}

// Whether it is the account that the step tells of, not a later one of the same name. Agents before this one wrote no
// mark.
bool same_account(const JsonReader& step, const SourceAccount& account) {
  return step.opt_string("mark").value_or(account.mark) == account.mark;
}

// A source that is a replica itself must not write transactions of its own, nor one that refuses writes: another may
// have taken over from it, and it could not follow that one then.
bool logs_accounts(ServerClient& client) {
  return client.replica_status().empty() && !client.identity().read_only;
}

}  // namespace

std::string replication_user_name(const std::string& snapshot_id, std::size_t max) {
  const std::string prefix(kUserPrefix);
  const bool plain = std::all_of(snapshot_id.begin(), snapshot_id.end(),
                                 [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'; });
  // Names are compared without regard to case in places, so only what needs no change at all is taken as it
  // is.
  if (plain && prefix.size() + snapshot_id.size() <= max) return prefix + snapshot_id;
  return prefix + sha256_hex(as_bytes(snapshot_id)).substr(0, std::min<std::size_t>(max - prefix.size(), 20));
}

SourceAccounts::SourceAccounts(const MysqlSettings& settings, fs::path state_dir, Clock& clock)
    : settings_(settings), dir_(state_dir / "accounts"), lease_file_(state_dir / "lease.json"), clock_(clock) {}

fs::path SourceAccounts::file_of(const std::string& user) const {
  const bool plain = !user.empty() && std::all_of(user.begin(), user.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
  });
  // A name that we never make has no file; nor may it lead out of the directory.
  return plain ? dir_ / (user + ".json") : fs::path();
}

void SourceAccounts::save(const SourceAccount& account) const {
  make_dir(dir_, 0700);
  write_file_atomic(file_of(account.user), write_account(account), 0600);
}

std::optional<SourceAccount> SourceAccounts::load(const fs::path& file) const {
  std::error_code ignored;
  if (file.empty() || !fs::exists(file, ignored)) return std::nullopt;
  const JsonDocument document = parse_json(read_file(file, kMaxStateFile), file.string());
  const JsonReader in(document, file.string(), Code::data_loss);
  SourceAccount out;
  out.user = in.string("user");
  out.host = in.string("host");
  out.snapshot_id = in.string("snapshot_id");
  out.created_at = in.string("created_at");
  out.last_seen = in.opt_string("last_seen").value_or("");
  out.mark = in.opt_string("mark").value_or("");
  out.lease = in.opt_boolean("lease").value_or(false);
  return out;
}

FileLock SourceAccounts::lock() const {
  make_dir(dir_, 0700);
  const SteadyTime deadline = clock_.steady() + Seconds(30);
  for (;;) {
    if (auto held = FileLock::try_take(dir_ / ".lock")) return std::move(*held);
    if (clock_.steady() >= deadline) {
      throw Error(Code::busy,
                  "using the list of replication accounts: another process holds " + (dir_ / ".lock").string());
    }
    clock_.sleep(Millis(20), {});
  }
}

std::vector<SourceAccount> SourceAccounts::list() const {
  std::vector<SourceAccount> out;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(dir_, ignored)) {
    if (entry.path().extension() != ".json") continue;
    if (auto account = load(entry.path())) out.push_back(std::move(*account));
  }
  std::sort(out.begin(), out.end(), [](const auto& a, const auto& b) { return a.user < b.user; });
  return out;
}

bool SourceAccounts::any() const {
  std::error_code ignored;
  return fs::exists(lease_file_, ignored) || !list().empty();
}

void SourceAccounts::hold_lease(ServerClient& client) const {
  const Values now = client.purge_settings();
  std::error_code ignored;
  if (!fs::exists(lease_file_, ignored)) write_file_atomic(lease_file_, write_lease(now), 0600);
  for (const auto& [name, value] : now) {
    if (!is_held(value)) client.set_purge_setting(name, std::string(kHeld));
  }
}

void SourceAccounts::end_lease_if_last(ServerClient& client) const {
  std::error_code ignored;
  if (!fs::exists(lease_file_, ignored)) return;
  for (const SourceAccount& account : list()) {
    if (account.lease) return;
  }
  const Values now = client.purge_settings();
  for (const auto& [name, value] : read_lease(lease_file_)) {
    const auto current =
        std::find_if(now.begin(), now.end(), [&name = name](const auto& each) { return each.first == name; });
    // Somebody else's value, or a restarted server's own, is not ours to change.
    if (current == now.end() || !is_held(current->second) || is_held(value)) continue;
    client.set_purge_setting(name, value);
  }
  remove_tree(lease_file_);
}

std::optional<Error> SourceAccounts::name_taken(ServerClient& client, const std::string& snapshot_id) const {
  const std::string user = replication_user_name(snapshot_id, client.dialect().user_name_max);
  // A new password for it would cut off the replicas that follow with the old one.
  if (load(file_of(user))) {
    return Error(Code::already_exists,
                 "creating the replication account " + user + ": a snapshot of the same id has it",
                 "choose another snapshot_id, or end that one's use first: cleanup_replication_source");
  }
  if (client.account_exists(user, settings_.replication_host)) {
    return Error(Code::already_exists,
                 "creating the replication account " + user + ": the server has one which this agent did not make",
                 "choose another snapshot_id, or drop that account if nothing uses it");
  }
  return std::nullopt;
}

SourceAccount SourceAccounts::make(ServerClient& client, const std::string& snapshot_id, const Secret& password,
                                   bool require_tls, JobContext& job) {
  const FileLock held = lock();
  SourceAccount account;
  account.user = replication_user_name(snapshot_id, client.dialect().user_name_max);
  account.host = settings_.replication_host;
  account.snapshot_id = snapshot_id;
  account.created_at = format_utc(clock_.now());
  if (const auto problem = name_taken(client, snapshot_id)) throw *problem;
  account.mark = random_password(kMarkLength).reveal();
  job.journal().record(step::kAccount, write_step(account));
  save(account);
  hold_lease(client);
  Writable writable(client, job.journal());
  client.create_replication_account(account.user, account.host, password, require_tls, logs_accounts(client));
  writable.close();
  return account;
}

void SourceAccounts::end(ServerClient& client, SourceAccount account, Journal& journal) const {
  // First what would let binary logs grow for ever.
  if (account.lease) {
    account.lease = false;
    save(account);
  }
  end_lease_if_last(client);
  if (client.account_exists(account.user, account.host)) {
    Writable writable(client, journal);
    client.drop_account(account.user, account.host, logs_accounts(client));
    writable.close();
  }
  remove_tree(file_of(account.user));
}

void SourceAccounts::release(ServerClient& client, const std::string& user, JobContext& job) {
  const FileLock held = lock();
  const auto account = load(file_of(user));
  if (!account) {
    throw Error(Code::not_found,
                "releasing the source: this agent made no replication account \"" + user.substr(0, 80) + "\"",
                "the name is replication_user.name of a snapshot's metadata; it may be released already");
  }
  job.journal().record(step::kRelease, write_step(*account));
  end(client, *account, job.journal());
}

std::string SourceAccounts::finish_release(ServerClient& client, JobContext& job) {
  const Journal::Step* const begun = job.journal().find(step::kRelease);
  if (begun == nullptr) return "";
  const JsonDocument document = parse_json(begun->data, "journal");
  const JsonReader in(document, "journal", Code::data_loss);
  const std::string user = in.string("user");
  {
    const FileLock held = lock();
    refuse_again(client, job.journal());
    if (const auto account = load(file_of(user)); account && same_account(in, *account))
      end(client, *account, job.journal());
    end_lease_if_last(client);
  }
  job.journal().record(kFinishedStep, JsonWriter().begin_object().member("replication_user", user).end_object().text());
  return "finished dropping the replication account " + user;
}

std::vector<std::string> SourceAccounts::release_all(ServerClient& client, JobContext& job) {
  const FileLock held = lock();
  std::vector<std::string> users;
  JsonWriter step;
  step.begin_object().key("users").begin_array();
  for (const SourceAccount& account : list()) {
    users.push_back(account.user);
    step.value(account.user);
  }
  job.journal().record(step::kDemote, step.end_array().end_object().text());
  for (const SourceAccount& account : list()) end(client, account, job.journal());
  end_lease_if_last(client);
  return users;
}

std::string SourceAccounts::finish_release_all(ServerClient& client, JobContext& job) {
  const Journal::Step* const begun = job.journal().find(step::kDemote);
  if (begun == nullptr) return "";
  const std::string data = begun->data;
  const JsonDocument document = parse_json(data, "journal");
  const std::vector<std::string> users = JsonReader(document, "journal", Code::data_loss).strings("users");
  {
    const FileLock held = lock();
    refuse_again(client, job.journal());
    for (const std::string& user : users) {
      if (const auto account = load(file_of(user))) end(client, *account, job.journal());
    }
    end_lease_if_last(client);
  }
  job.journal().record(kFinishedStep, data);
  return "finished dropping the replication accounts";
}

std::string SourceAccounts::undo_journal(ServerClient& client, JobContext& job) {
  std::string done;
  const FileLock held = lock();
  refuse_again(client, job.journal());
  // A copy: ending an account may add to the journal.
  for (const Journal::Step& each : std::vector<Journal::Step>(job.journal().steps())) {
    if (each.name != step::kAccount) continue;
    const JsonDocument document = parse_json(each.data, "journal");
    const JsonReader in(document, "journal", Code::data_loss);
    const std::string user = in.string("user");
    if (const auto account = load(file_of(user)); account && same_account(in, *account)) {
      end(client, *account, job.journal());
      done += (done.empty() ? "" : ", ") + ("dropped the replication account " + user);
    }
  }
  // A crash between the two files of one release leaves a lease that nobody has.
  end_lease_if_last(client);
  return done;
}

std::vector<std::string> SourceAccounts::drop_inherited(ServerClient& client, const std::string& followed_by,
                                                        const std::string& keep) const {
  const FileLock held = lock();
  std::vector<std::string> done;
  for (const ReplicationAccount& account : client.replication_accounts(std::string(kUserPrefix))) {
    if ((!account.by_agent && account.user != followed_by) || account.user == keep) continue;
    if (load(file_of(account.user)) || !client.dump_threads(account.user).empty()) continue;
    client.drop_account(account.user, account.host, false);
    done.push_back(account.user);
  }
  return done;
}

std::vector<std::string> SourceAccounts::tend(ServerClient& client) {
  std::vector<std::string> done;
  if (!any()) return done;
  const FileLock held = lock();
  const WallTime now = clock_.now();
  bool leased = false;
  for (SourceAccount& account : list()) {
    if (!account.lease) continue;
    if (!client.dump_threads(account.user).empty()) {
      account.last_seen = format_utc(now);
      save(account);
    }
    const WallTime seen = parse_utc(account.last_seen.empty() ? account.created_at : account.last_seen);
    if (now - seen <= settings_.lease_limit) {
      leased = true;
      continue;
    }
    account.lease = false;
    save(account);
    done.push_back("ended the lease of " + account.user + ": no replica has been connected with it since " +
                   format_utc(seen));
  }
  if (leased) {
    hold_lease(client);
  } else {
    end_lease_if_last(client);
  }
  for (const std::string& each : done) log_warning(each);
  return done;
}

}  // namespace guestagent::mysql
