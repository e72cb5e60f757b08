/* Runs models by a backend from plain C, for machines where only the backend can be built: a GPU machine, for example.
 *
 *     check_backend LIBRARY DEVICE MODELS
 *
 * LIBRARY is libsmp_torchscript.so, MODELS the folder that make_torchscript_models filled. On the CPU the values must be libtorch's own bit
 * for bit; on another device they may differ in the last digits, and runs must still repeat. Ends with 0 when all is well.
 */
#include "smp_backend.h"

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LENGTH (20 * 22 * 24)
#define MOST (1 << 20)

static const smp_backend *backend;
static const char *device, *models;
static float x[LENGTH], mask[LENGTH], expected[MOST], first[MOST], second[MOST];
static int wrong;

static void check(int fine, const char *what)
{
    printf("%s: %s\n", fine ? "ok" : "WRONG", what);
    wrong += !fine;
}

struct output { float *values; size_t count; };

static void receive(void *context, uint32_t rank, const int64_t *shape, const float *values)
{
    struct output *output = context;
    uint32_t i;
    output->count = 1;
    for (i = 0; i < rank; i++)
        output->count *= (size_t)shape[i];
    if (output->count <= MOST)
        memcpy(output->values, values, output->count * sizeof *values);
}

static size_t read_file(const char *name, const char *end, void *into, size_t most)
{
    char path[1024];
    size_t count;
    FILE *file;
    snprintf(path, sizeof path, "%s/%s%s", models, name, end);
    file = fopen(path, "rb");
    count = file == NULL ? 0 : fread(into, 1, most, file);
    if (file != NULL)
        fclose(file);
    return count;
}

static smp_backend_model *open_model(const char *name)
{
    static uint8_t bytes[MOST];
    smp_backend_open request = {sizeof request, 1, bytes, 0, device, 1, 0};
    smp_backend_model *model = NULL;
    smp_backend_message why = {{0}};
    int32_t status;
    request.model_length = read_file(name, ".pt", bytes, sizeof bytes);
    status = backend->open(&request, &model, &why);
    if (status != SMP_BACKEND_OK)
        printf("open %s: status %d, %s\n", name, (int)status, why.text);
    return model;
}

static int32_t run(smp_backend_model *model, uint32_t count, const char *output, float *into, size_t *length, int32_t cancelled)
{
    const smp_backend_tensor inputs[2] = {
        {count == 1 ? "x" : "volume", x, LENGTH, 5, 0, {1, 1, 20, 22, 24}},
        {"mask", mask, LENGTH, 5, 0, {1, 1, 20, 22, 24}},
    };
    const volatile int32_t flag = cancelled;
    struct output received = {into, 0};
    smp_backend_message why = {{0}};
    const int32_t status = backend->run(model, inputs, count, output, receive, &received, &flag, &why);
    *length = received.count;
    return status;
}

static void compare(const char *name, uint32_t inputs, const char *output, const char *file)
{
    const size_t length = read_file(file, ".expected", expected, sizeof expected) / sizeof *expected;
    smp_backend_model *model = open_model(name);
    size_t count = 0, again = 0, i;
    double largest = 0.0;
    int fine = model != NULL && run(model, inputs, output, first, &count, 0) == SMP_BACKEND_OK && count == length && length > 0 &&
               run(model, inputs, output, second, &again, 0) == SMP_BACKEND_OK && again == count &&
               memcmp(first, second, count * sizeof *first) == 0;
    for (i = 0; fine && i < count; i++)
        largest = fmax(largest, fabs((double)first[i] - (double)expected[i]));
    fine = fine && (strcmp(device, "cpu") == 0 ? memcmp(first, expected, count * sizeof *first) == 0 : largest < 1e-4);
    printf("%s %s: %lu values, largest difference %g\n", name, output, (unsigned long)count, largest);
    check(fine, name);
    if (model != NULL)
        backend->close(model);
}

int main(int argc, char **argv)
{
    const smp_backend *(*entry)(uint32_t);
    smp_backend_model *model;
    size_t count;
    void *library;
    int i;

    if (argc != 4)
        return 2;
    device = argv[2];
    models = argv[3];
    library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    *(void **)&entry = dlsym(library, "smp_backend_entry");
    backend = entry == NULL ? NULL : entry(SMP_BACKEND_ABI);
    if (backend == NULL || entry(SMP_BACKEND_ABI + 1) != NULL)
        return 1;
    printf("%s, %s, on %s\n", backend->name, backend->version(), device);
    for (i = 0; i < LENGTH; i++) {
        x[i] = (float)(((long)i * 7919 + 5L * 104729) % 1009) / 1024.0f - 0.5f;
        mask[i] = (float)(((long)i * 7919 + 6L * 104729) % 1009) / 1024.0f - 0.5f > 0.1f ? 1.0f : 0.0f;
    }
    check(backend->device_available(device) == 1, "the device is there");
    compare("net", 1, "logits", "net");
    compare("dict", 1, "labels", "dict.labels");
    compare("tuple", 1, "1", "tuple.1");
    compare("wide", 1, "out", "wide");
    compare("predictor", 2, "logit", "predictor");
    model = open_model("hungry");
    check(model != NULL && run(model, 1, "y", first, &count, 0) == SMP_BACKEND_OUT_OF_MEMORY, "a want of the machine's memory");
    if (model != NULL)
        backend->close(model);
    model = open_model("greedy");
    check(model != NULL && run(model, 1, "y", first, &count, 0) ==
              (strcmp(device, "cpu") == 0 ? SMP_BACKEND_OUT_OF_MEMORY : SMP_BACKEND_DEVICE_OUT_OF_MEMORY), "a want of the device's memory");
    if (model != NULL)
        backend->close(model);
    model = open_model("endless");
    check(model != NULL && run(model, 1, "y", first, &count, 1) == SMP_BACKEND_CANCELLED, "a cancelled run ends");
    if (model != NULL)
        backend->close(model);
    printf("%d wrong\n", wrong);
    return wrong != 0;
}
