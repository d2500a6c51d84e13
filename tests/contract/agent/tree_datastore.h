// A datastore without a server: a directory tree with a feed of its changes, which a replica applies in order. It shows
// what the contract asks of any datastore, and is what the tests hold the agent to.
//
// A host is a directory BASE/NAME: `data/` is the tree, `feed` a line "PATH CONTENT" for each change ever made,
// `applied` how many of the source's changes a replica has applied, `follows` the source's name, `accounts/` who may
// follow.
#pragma once

#include <algorithm>
#include <cstring>
#include <string>

#include "base/file.h"
#include "strategies/datastore.h"

namespace guestagent::test {

class TreeDatastore : public Datastore, public DatastoreUpkeep {
 public:
  TreeDatastore(fs::path base, std::string name)
      : base_(std::move(base)), name_(std::move(name)), dir_(base_ / name_), data_(dir_ / "data") {
    fs::create_directories(dir_ / "accounts");
    fs::create_directories(data_);
  }

  // --- what a user of the datastore does ---
  void change(const std::string& path, const std::string& content) {
    write(dir_ / "feed", read(dir_ / "feed") + path + " " + content + "\n");
    write(data_ / path, content);
  }
  std::string content() const {
    std::string out;
    for (const fs::path& file : files_in(data_)) out += file.filename().string() + "=" + read(file) + ";";
    return out;
  }
  bool is_replica() const { return fs::exists(dir_ / "follows"); }
  // Whether no job has left anything.
  bool is_tidy() const { return !fs::exists(dir_ / "staging") && !fs::exists(dir_ / "old"); }
  std::size_t accounts() const { return files_in(dir_ / "accounts").size(); }

  // --- Datastore ---
  OwnJson read_position(const JsonReader& in) const override { return place(in.uint("changes")); }
  ServerDescription describe() override {
    ServerDescription out;
    out.reachable = true;
    out.datastore_version = "tree-1";
    out.advertised_address = name_;
    out.port = 1;
    out.has_user_data = !files_in(data_).empty();
    return out;
  }
  Plan plan_snapshot(const SnapshotRequest&) override { return {}; }
  std::unique_ptr<SnapshotStream> open_snapshot(const SnapshotRequest& request, JobContext& job) override {
    const std::string account = "repl_" + request.snapshot_id;
    job.journal().record("tree.account", text_step(account));
    write(dir_ / "accounts" / account, "");
    SourceFacts facts;
    facts.master_host = name_;
    facts.master_port = 1;
    facts.datastore_version = "tree-1";
    facts.data_position = facts.lease_position = place(lines(read(dir_ / "feed")).size());
    facts.replication_user = account;
    facts.replication_password = Secret("none");
    facts.tool = "tree 1";
    facts.format = "tree";
    std::string text;
    for (const fs::path& file : files_in(data_)) text += file.filename().string() + " " + read(file) + "\n";
    facts.dataset_bytes = text.size();
    return std::make_unique<Stream>(text, facts);
  }
  Plan plan_attach(const AttachRequest& request, const std::string&) override {
    Plan plan;
    if (!files_in(data_).empty() && !request.overwrite)
      plan.checks.push_back({"data", Check::Result::failed, "it has data", "overwrite it"});
    return plan;
  }
  std::uint64_t receive(PieceSource& stream, const fs::path& dir, JobContext&) override {
    std::string text;
    std::vector<std::byte> buffer(4096);
    while (const std::size_t n = stream.read(buffer)) text.append(reinterpret_cast<const char*>(buffer.data()), n);
    for (const std::string& line : lines(text)) apply(line, dir);
    return 0;
  }
  std::unique_ptr<Installation> install(const AttachRequest&, const fs::path& dir, JobContext& job) override {
    job.journal().record("tree.exchange");
    fs::rename(data_, dir_ / "old");
    fs::rename(dir, data_);
    return std::make_unique<Exchange>(*this);
  }
  AttachOutcome start_replicating(const AttachRequest& request, JobContext& job) override {
    job.journal().record("tree.follow");
    write(dir_ / "applied", changes_of(request.snapshot.data_position));
    write(dir_ / "follows", request.snapshot.master_host);
    catch_up();
    return {{}, request.read_only, true};
  }
  Plan plan_stop(const DetachRequest&) override { return {}; }
  DetachOutcome stop_replicating(const DetachRequest&, JobContext& job) override {
    if (!is_replica()) throw Error(Code::failed_precondition, "it is no replica", "attach it first");
    catch_up();
    DetachOutcome out;
    out.last_applied = place(std::stoul(read(dir_ / "applied")));
    job.journal().record("tree.detach", text_step(read(dir_ / "follows")));
    fs::remove(dir_ / "follows");
    return out;
  }

  // --- DatastoreUpkeep ---
  ReplicationStatus status() override {
    ReplicationStatus out;
    if (is_replica()) {
      catch_up();
      out.role = ReplicationRole::replica;
      out.verdict = ReplicationVerdict::healthy;
      out.applied = place(std::stoul(read(dir_ / "applied")));
      out.threads = {{"feed_reader", ThreadState::running, true}};
    } else {
      out.role = accounts() > 0 ? ReplicationRole::source : ReplicationRole::standalone;
      out.verdict = accounts() > 0 ? ReplicationVerdict::source : ReplicationVerdict::standalone;
    }
    return out;
  }
  bool has_part(const fs::path&) override { return false; }
  void keep_staged(const fs::path&, const PieceSource::Kind&, JobContext&) override {}
  fs::path make_staging(const PieceSource::Kind&, JobContext& job) override {
    job.journal().record("tree.staging");
    fs::create_directory(dir_ / "staging");
    return dir_ / "staging";
  }
  std::string recover(Undertaking what, JobContext& job) override {
    const Journal& journal = job.journal();
    const bool succeeded = journal.find("result") != nullptr;
    if (what == Undertaking::attach && succeeded) {
      fs::remove_all(dir_ / "old");
    } else if (what == Undertaking::attach) {
      put_back();
      fs::remove_all(dir_ / "staging");
    } else if (const Journal::Step* step = journal.find("tree.account"); step && !succeeded) {
      fs::remove(dir_ / "accounts" / text_of(*step));
    } else if (const Journal::Step* detach = journal.find("tree.detach"); detach && !succeeded) {
      write(dir_ / "follows", text_of(*detach));
    }
    return succeeded ? "" : "made the tree as it was";
  }
  Plan plan_release(const std::string&) override { return {}; }
  void release_source(const std::string& user, JobContext&) override { fs::remove(dir_ / "accounts" / user); }
  std::vector<TableChecksum> checksum_tables(const std::vector<std::string>&, std::optional<std::uint64_t>,
                                             const std::optional<OwnJson>&, OwnJson&, JobContext&) override {
    return {};
  }

 private:
  class Stream : public SnapshotStream {
   public:
    Stream(std::string text, SourceFacts facts) : text_(std::move(text)), facts_(std::move(facts)) {}
    std::size_t read(std::span<std::byte> into) override {
      const std::size_t n = std::min(into.size(), text_.size() - at_);
      std::memcpy(into.data(), text_.data() + at_, n);
      at_ += n;
      return n;
    }
    std::uint64_t expected_bytes() const override { return text_.size(); }
    SourceFacts facts() override { return facts_; }

   private:
    const std::string text_;
    const SourceFacts facts_;
    std::size_t at_ = 0;
  };
  class Exchange : public Installation {
   public:
    explicit Exchange(TreeDatastore& tree) : tree_(tree) {}
    void accept() override { fs::remove_all(tree_.dir_ / "old"); }

   private:
    TreeDatastore& tree_;
  };

  static std::string read(const fs::path& file) { return fs::exists(file) ? read_file(file) : ""; }
  static void write(const fs::path& file, const std::string& text) { write_file_atomic(file, text, 0600); }
  static std::vector<std::string> lines(const std::string& text) {
    std::vector<std::string> out;
    for (std::size_t at = 0, end = 0; (end = text.find('\n', at)) != std::string::npos; at = end + 1)
      out.push_back(text.substr(at, end - at));
    return out;
  }
  static void apply(const std::string& line, const fs::path& dir) {
    write(dir / line.substr(0, line.find(' ')), line.substr(line.find(' ') + 1));
  }
  static std::string text_step(const std::string& text) {
    return JsonWriter().begin_object().member("text", text).end_object().text();
  }
  static std::string text_of(const Journal::Step& step) { return parse_json(step.data, "step")["text"].GetString(); }
  static OwnJson place(std::uint64_t changes) {
    return OwnJson(JsonWriter().begin_object().member("changes", changes).end_object().text());
  }
  static std::string changes_of(const OwnJson& place) {
    return std::to_string(parse_json(place.text(), "tree")["changes"].GetUint64());
  }
  static std::vector<fs::path> files_in(const fs::path& dir) {
    std::vector<fs::path> out;
    for (const fs::directory_entry& entry : fs::directory_iterator(dir)) out.push_back(entry.path());
    std::sort(out.begin(), out.end());
    return out;
  }
  void put_back() {
    if (!fs::exists(dir_ / "old")) return;
    fs::remove(dir_ / "follows");
    fs::remove_all(data_);
    fs::rename(dir_ / "old", data_);
  }
  void catch_up() {
    const std::vector<std::string> feed = lines(read(base_ / read(dir_ / "follows") / "feed"));
    for (std::size_t n = std::stoul(read(dir_ / "applied")); n < feed.size(); ++n) apply(feed[n], data_);
    write(dir_ / "applied", std::to_string(feed.size()));
  }

  const fs::path base_;
  const std::string name_;
  const fs::path dir_, data_;
};

}  // namespace guestagent::test
