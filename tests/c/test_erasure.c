/* Erasure: what is erased is gone, and what must not be erased stays. */
#include <unistd.h>

#include "check.h"

static int is_done(int32_t status)
{
    /* Which of the two depends on the file system under the scratch folder. */
    return status == SMP_OK || status == SMP_PARTIAL;
}

int main(int argc, char **argv)
{
    const char *file, *folder, *link, *target;
    if (argc != 3) return 2;
    file = check_path(argv[1], "plain.dcm");
    check_write(file, "Doe^Jane", 8);
    CHECK(is_done(smp_erase_file(file, 3)));
    CHECK(!check_exists(file));
    CHECK(smp_erase_file(file, 3) < 0);

    folder = check_path(argv[1], "study");
    check_mkdir(folder);
    check_mkdir(check_path(folder, "series"));
    check_write(check_path(folder, "series/1.dcm"), "Doe^Jane", 8);
    check_write(check_path(folder, "empty"), "", 0);
    CHECK(is_done(smp_erase_directory(folder, 1)));
    CHECK(!check_exists(folder));
    CHECK(smp_erase_directory(folder, 1) < 0);

    /* A link is not followed. */
    target = check_path(argv[1], "target");
    link = check_path(argv[1], "link");
    check_write(target, "stays", 5);
    CHECK(symlink(target, link) == 0);
    CHECK_STATUS(smp_erase_file(link, 1), SMP_ERR_ERASE_REFUSED);
    CHECK(check_exists(target));
    /* What is refused here lies in the scratch folder, so that a lost refusal costs nothing. */
    check_mkdir(check_path(argv[1], "outside"));
    check_write(check_path(argv[1], "outside/stays"), "stays", 5);
    CHECK(symlink(check_path(argv[1], "outside"), check_path(argv[1], "folder-link")) == 0);
    CHECK_STATUS(smp_erase_directory(check_path(argv[1], "folder-link"), 1), SMP_ERR_ERASE_REFUSED);
    CHECK(check_exists(check_path(argv[1], "outside/stays")));
    CHECK(mkfifo(check_path(argv[1], "pipe"), 0600) == 0);
    CHECK_STATUS(smp_erase_file(check_path(argv[1], "pipe"), 1), SMP_ERR_ERASE_REFUSED);
    CHECK(check_exists(check_path(argv[1], "pipe")));
    check_mkdir(folder);
    CHECK(symlink(check_path(argv[1], "outside"), check_path(folder, "way-out")) == 0);
    CHECK(is_done(smp_erase_directory(folder, 1)));
    CHECK(check_exists(check_path(argv[1], "outside/stays")));

    CHECK_STATUS(smp_erase_file(target, -1), SMP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(smp_erase_directory(check_path(argv[1], "outside"), INT32_MIN), SMP_ERR_INVALID_ARGUMENT);
    CHECK(check_exists(target) && check_exists(check_path(argv[1], "outside/stays")));
    CHECK_STATUS(smp_erase_file(NULL, 1), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_erase_directory(NULL, 1), SMP_ERR_NULL_ARGUMENT);
    CHECK_STATUS(smp_erase_file("", 1), SMP_ERR_INVALID_ARGUMENT);
    return check_end(argv[0]);
}
