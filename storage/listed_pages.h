// A server's listing on its way to the caller of ObjectStore::list(): the same rules for every server that lists in
// pages.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "storage/object_store.h"

namespace guestagent {

class ListedPages {
 public:
  // The server was asked for what begins with `below` + `prefix`, where `below` is the store's root there ("prefix/",
  // or nothing). `each` outlives it.
  ListedPages(std::string below, std::string_view prefix, const std::function<void(const ObjectInfo&)>& each);

  // Throws Error(unavailable) for a page that is not in order or does not go on from the last one, as it comes from a
  // server that does not know how to go on.
  void check(const std::vector<ObjectInfo>& page);
  // Tells the caller of what was asked for and can be an object of ours, with the root taken off. Whatever else a page
  // has, such as what a server adds that does not know the parameter prefix, is passed over: who deletes what is listed
  // must not get another's. REQUIRES: check(page) passed.
  void tell(std::vector<ObjectInfo> page);

  // The last name as the server calls it, of all pages so far; "" when there was none.
  const std::string& last() const { return last_; }

 private:
  const std::string below_, asked_;
  const std::function<void(const ObjectInfo&)>& each_;
  std::string last_;
};

}  // namespace guestagent
