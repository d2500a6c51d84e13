#include "storage/listed_pages.h"

namespace guestagent {

ListedPages::ListedPages(std::string below, std::string_view prefix, const std::function<void(const ObjectInfo&)>& each)
    : below_(std::move(below)), asked_(below_ + std::string(prefix)), each_(each) {}

void ListedPages::check(const std::vector<ObjectInfo>& page) {
  const std::string* before = &last_;
  for (const ObjectInfo& info : page) {
    if (info.name <= *before) throw Error(Code::unavailable, "its listing is not in order");
    before = &info.name;
  }
  if (!page.empty()) last_ = page.back().name;
}

void ListedPages::tell(std::vector<ObjectInfo> page) {
  for (ObjectInfo& info : page) {
    if (!info.name.starts_with(asked_)) continue;
    info.name.erase(0, below_.size());
    if (valid_object_name(info.name)) each_(info);
  }
}

}  // namespace guestagent
