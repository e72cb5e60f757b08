// A second translation unit with the same header: nothing in it may be defined twice.
#include "smp.hpp"

std::string other_unit(const smp::config &config);

std::string other_unit(const smp::config &config) {
    return config.value("cloud.provider").value_or("none");
}
