// The hosts that the neutral suite runs on: one World for each engine, with a host "source" and a host "target".
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "contract/agent/tree_datastore.h"
#include "strategies/datastores.h"
#include "tests/support/mariadb_server.h"
#include "tests/support/no_roles.h"

namespace guestagent::test {

// What a process needs to be the agent of a host.
struct Host {
  std::string engine, name;
  fs::path base, server;  // the test's directory; the server's, where there is one

  std::vector<std::string> words() const { return {engine, name, base.string(), server.string()}; }
  static Host of(const std::vector<std::string>& w) { return {w.at(0), w.at(1), w.at(2), w.at(3)}; }

  Settings settings() const {
    Settings out;
    if (server.empty()) return out;
    out.mysql = MariadbServer::settings_of(server);
    out.mysql.staging_dir.clear();
    return out;
  }
  DatastoreParts parts(const Settings& settings) const {
    if (!server.empty()) return make_datastore(settings, system_clock());
    const auto tree = std::make_shared<TreeDatastore>(base, name);
    return {tree, tree, std::make_shared<NoRoles>()};
  }
};

class World {
 public:
  virtual ~World() = default;
  virtual Host host(const std::string& name) const = 0;

  // What a user of the datastore does, and sees: "KEY=VALUE;" of each, by key.
  virtual void change(const std::string& host, const std::string& key, const std::string& value) = 0;
  virtual std::string content(const std::string& host) = 0;
  // How many accounts of replicas there are, and whether no job has left anything.
  virtual unsigned accounts(const std::string& host) = 0;
  virtual bool is_tidy(const std::string& host) = 0;

  // The journal's steps of each method, in their order, and whether a detach that dies right after one is finished.
  virtual std::vector<std::string> snapshot_steps() const = 0;
  virtual std::vector<std::string> attach_steps() const = 0;
  virtual std::vector<std::pair<std::string, bool>> detach_steps() const = 0;
};

class TreeWorld : public World {
 public:
  explicit TreeWorld(fs::path base) : base_(std::move(base)) {}
  Host host(const std::string& name) const override { return {"Tree", name, base_, {}}; }
  void change(const std::string& host, const std::string& key, const std::string& value) override {
    TreeDatastore(base_, host).change(key, value);
  }
  std::string content(const std::string& host) override { return TreeDatastore(base_, host).content(); }
  unsigned accounts(const std::string& host) override {
    return static_cast<unsigned>(TreeDatastore(base_, host).accounts());
  }
  bool is_tidy(const std::string& host) override { return TreeDatastore(base_, host).is_tidy(); }
  std::vector<std::string> snapshot_steps() const override { return {"job", "objects", "tree.account"}; }
  std::vector<std::string> attach_steps() const override {
    return {"job", "tree.staging", "tree.exchange", "tree.follow", "result"};
  }
  std::vector<std::pair<std::string, bool>> detach_steps() const override {
    return {{"tree.detach", false}, {"result", true}};
  }

 private:
  const fs::path base_;
};

class MysqlWorld : public World {
 public:
  explicit MysqlWorld(fs::path base) : base_(std::move(base)) {
    for (const auto& [name, id] : {std::pair("source", 101U), std::pair("target", 202U)}) {
      servers_[name] = std::make_unique<MariadbServer>(MariadbOptions{.server_id = id, .lines = {}});
      servers_[name]->sql("CREATE DATABASE d; CREATE TABLE d.t (k VARCHAR(9) PRIMARY KEY, v VARCHAR(9))");
    }
  }
  ~MysqlWorld() override {
    // What an agent started is not the test's child.
    for (const auto& [name, server] : servers_) {
      try {
        server->sql("SHUTDOWN");
      } catch (const Error&) {
        continue;  // it does not run: the test has failed
      }
      for (unsigned look = 0; look < 3000 && fs::exists(server->dir() / "pid"); ++look)
        system_clock().sleep(Millis(20), {});
    }
  }
  Host host(const std::string& name) const override { return {"Mysql", name, base_, servers_.at(name)->dir()}; }
  void change(const std::string& host, const std::string& key, const std::string& value) override {
    servers_.at(host)->sql("REPLACE INTO d.t VALUES ('" + key + "', '" + value + "')");
  }
  std::string content(const std::string& host) override {
    std::string out = servers_.at(host)->sql("SELECT k, v FROM d.t ORDER BY k");
    std::replace(out.begin(), out.end(), '\t', '=');
    std::replace(out.begin(), out.end(), '\n', ';');
    return out;
  }
  unsigned accounts(const std::string& host) override {
    const std::string count = servers_.at(host)->sql("SELECT COUNT(*) FROM mysql.user WHERE User LIKE 'repl\\_%'");
    return static_cast<unsigned>(std::stoul(count));
  }
  bool is_tidy(const std::string& host) override { return !fs::exists(servers_.at(host)->dir() / "data.guestagent"); }
  std::vector<std::string> snapshot_steps() const override {
    return {"job", "objects", "source.work", "source.account"};
  }
  std::vector<std::string> attach_steps() const override {
    return {"job",          "staging",       "install.begin",  "install.stop", "switch.plan",
            "switch.in",    "switch.done",   "install.record", "first-start",  "install.start",
            "install.done", "replica.start", "result"};
  }
  std::vector<std::pair<std::string, bool>> detach_steps() const override {
    return {{"detach.drain", false}, {"detach.options", false}, {"detach.end", true}, {"result", true}};
  }

 private:
  const fs::path base_;
  std::map<std::string, std::unique_ptr<MariadbServer>> servers_;
};

}  // namespace guestagent::test
