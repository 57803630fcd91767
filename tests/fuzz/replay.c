/* main() of a fuzz target outside the fuzzer: feeds it every file of each directory named on the command line, under
 * the sanitizers of the build. A corpus without files is a failure, because it would test nothing. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    long size = -1;

    if (file && fseek(file, 0, SEEK_END) == 0)
        size = ftell(file);
    if (size < 0) {
        perror(path);
        exit(EXIT_FAILURE);
    }
    rewind(file);
    /* Exactly as large as the input, so that a read past its end is seen. */
    uint8_t *data = malloc((size_t)size);
    if ((!data && size > 0) || fread(data, 1, (size_t)size, file) != (size_t)size) {
        perror(path);
        exit(EXIT_FAILURE);
    }
    fclose(file);
    LLVMFuzzerTestOneInput(data, (size_t)size);
    free(data);
}

static unsigned replay_directory(const char *directory)
{
    struct dirent **entries;
    int count = scandir(directory, &entries, NULL, alphasort);
    unsigned replayed = 0;

    if (count < 0) {
        perror(directory);
        exit(EXIT_FAILURE);
    }
    for (int i = 0; i < count; i++) {
        if (entries[i]->d_name[0] != '.') {
            char path[4096];
            snprintf(path, sizeof(path), "%s/%s", directory, entries[i]->d_name);
            replay_file(path);
            replayed++;
        }
        free(entries[i]);
    }
    free(entries);
    return replayed;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: %s DIRECTORY...\n", argv[0]);
        return EXIT_FAILURE;
    }
    for (int i = 1; i < argc; i++) {
        unsigned replayed = replay_directory(argv[i]);
        printf("%s: %u inputs\n", argv[i], replayed);
        if (replayed == 0)
            return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}
