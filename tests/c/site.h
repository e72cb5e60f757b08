/* What several C programs share: two key stores that know each other, a store between them, and a small made-up study. */
#ifndef SITE_H
#define SITE_H

#include "check.h"

/* A hospital that seals and a researcher who opens. */
struct site {
    smp_keystore *hospital, *researcher;
    const char *hospital_id, *researcher_id;
    smp_config *config;
};

static void site_introduce(smp_keystore *from, const char *id, smp_keystore *to)
{
    const char *known_as = smp_keystore_import(to, "peer", smp_keystore_export_public(from, id));
    CHECK_TEXT(known_as, id);
    CHECK_STATUS(smp_keystore_confirm(to, known_as, smp_keystore_fingerprint(from, id)), SMP_OK);
}

static smp_config *site_config(const char *folder)
{
    smp_config *config = smp_config_new();
    CHECK(config != NULL);
    check_mkdir(check_path(folder, "store"));
    CHECK_STATUS(smp_config_set(config, "cloud.provider", "local"), SMP_OK);
    CHECK_STATUS(smp_config_set(config, "cloud.bucket", check_path(folder, "store")), SMP_OK);
    CHECK_STATUS(smp_config_set(config, "workspace", check_path(folder, "workspace")), SMP_OK);
    CHECK_STATUS(smp_config_set(config, "key_store_path", check_path(folder, "researcher-keys")), SMP_OK);
    CHECK_STATUS(smp_config_set(config, "encryption_key_path", check_path(folder, "researcher-keys/master.key")), SMP_OK);
    CHECK_STATUS(smp_config_set(config, "audit_log_path", check_path(folder, "audit")), SMP_OK);
    CHECK_STATUS(smp_config_set(config, "user_id", "researcher@university.example"), SMP_OK);
    CHECK_STATUS(smp_config_set(config, "device", "cpu"), SMP_OK);
    return config;
}

static struct site site_open(const char *folder)
{
    struct site site;
    site.config = site_config(folder);
    site.hospital = smp_keystore_open(check_path(folder, "hospital-keys"), NULL);
    site.researcher = smp_keystore_open(check_path(folder, "researcher-keys"), NULL);
    CHECK(site.hospital != NULL && site.researcher != NULL);
    site.hospital_id = smp_keystore_generate(site.hospital, SMP_KEY_ECDH_P384, "sealing");
    site.researcher_id = smp_keystore_generate(site.researcher, SMP_KEY_ECDH_P384, "hospital-data-transfer");
    CHECK(site.hospital_id != NULL && site.researcher_id != NULL);
    if (site.hospital_id != NULL && site.researcher_id != NULL) {
        site_introduce(site.hospital, site.hospital_id, site.researcher);
        site_introduce(site.researcher, site.researcher_id, site.hospital);
    }
    return site;
}

static void site_close(struct site *site)
{
    smp_config_free(site->config);
    smp_keystore_free(site->hospital);
    smp_keystore_free(site->researcher);
}

/* One DICOM file being written: explicit VR, little endian (PS3.5, 7.1.2). */
struct dicom {
    unsigned char bytes[8192];
    size_t size;
};

static void dicom_number(struct dicom *dicom, unsigned long value, int width)
{
    int i;
    for (i = 0; i < width; i++) dicom->bytes[dicom->size++] = (unsigned char)(value >> (8 * i));
}

static void dicom_element(struct dicom *dicom, unsigned group, unsigned element, const char *vr, const void *value, size_t size)
{
    size_t padded = size + (size & 1);
    dicom_number(dicom, group, 2);
    dicom_number(dicom, element, 2);
    memcpy(dicom->bytes + dicom->size, vr, 2);
    dicom->size += 2;
    if (strcmp(vr, "OW") == 0 || strcmp(vr, "OB") == 0) {
        dicom_number(dicom, 0, 2);
        dicom_number(dicom, padded, 4);
    } else {
        dicom_number(dicom, padded, 2);
    }
    memcpy(dicom->bytes + dicom->size, value, size);
    dicom->size += size;
    if (size & 1) dicom->bytes[dicom->size++] = (unsigned char)(strcmp(vr, "UI") == 0 || strcmp(vr, "OB") == 0 ? 0 : ' ');
}

static void dicom_text(struct dicom *dicom, unsigned group, unsigned element, const char *vr, const char *value)
{
    dicom_element(dicom, group, element, vr, value, strlen(value));
}

static void dicom_short(struct dicom *dicom, unsigned group, unsigned element, unsigned value)
{
    unsigned char bytes[2];
    bytes[0] = (unsigned char)value;
    bytes[1] = (unsigned char)(value >> 8);
    dicom_element(dicom, group, element, "US", bytes, 2);
}

#define STUDY_COLUMNS 8
#define STUDY_ROWS 6
#define STUDY_SLICES 4
#define STUDY_VOXELS (STUDY_COLUMNS * STUDY_ROWS * STUDY_SLICES)

/* The voxel at (column, row, slice): no two are equal, so any other order shows. */
static int study_voxel(int column, int row, int slice)
{
    return 1000 + column + 10 * row + 100 * slice;
}

/* One slice of an axial MR series, 0.5 mm between columns, 0.75 between rows, 2.5 between slices, patient Jane Doe. Slices of the
 * second echo, 2, are brighter by 1000; 0 is for series of one. */
static struct dicom study_echo(int slice, int echo)
{
    static const char mr_image_storage[] = "1.2.840.10008.5.1.4.1.1.4";
    struct dicom dicom;
    unsigned char pixels[STUDY_COLUMNS * STUDY_ROWS * 2];
    char text[64], uid[64];
    size_t length_at, group_start;
    int row, column;
    memset(&dicom, 0, sizeof dicom);
    memcpy(dicom.bytes + 128, "DICM", 4);
    dicom.size = 132;
    snprintf(uid, sizeof uid, "1.2.826.0.1.3680043.8.498.1.%d", slice + 1 + 100 * echo);
    /* Group 0002 says its own length (PS3.10, 7.1). */
    dicom_element(&dicom, 2, 0, "UL", "\0\0\0\0", 4);
    length_at = dicom.size - 4;
    group_start = dicom.size;
    dicom_element(&dicom, 2, 1, "OB", "\0\1", 2);
    dicom_text(&dicom, 2, 2, "UI", mr_image_storage);
    dicom_text(&dicom, 2, 3, "UI", uid);
    dicom_text(&dicom, 2, 0x10, "UI", "1.2.840.10008.1.2.1");
    dicom_text(&dicom, 2, 0x12, "UI", "1.2.826.0.1.3680043.8.498.2");
    dicom.bytes[length_at] = (unsigned char)(dicom.size - group_start);
    dicom_text(&dicom, 8, 8, "CS", "ORIGINAL\\PRIMARY\\M\\SE");
    dicom_text(&dicom, 8, 0x16, "UI", mr_image_storage);
    dicom_text(&dicom, 8, 0x18, "UI", uid);
    dicom_text(&dicom, 8, 0x20, "DA", "20240229");
    dicom_text(&dicom, 8, 0x60, "CS", "MR");
    dicom_text(&dicom, 0x10, 0x10, "PN", "Doe^Jane");
    dicom_text(&dicom, 0x10, 0x20, "LO", "MRN-0042");
    dicom_text(&dicom, 0x10, 0x30, "DA", "19570401");
    dicom_text(&dicom, 0x10, 0x40, "CS", "F");
    dicom_text(&dicom, 0x18, 0x50, "DS", "2.5");
    if (echo != 0) dicom_text(&dicom, 0x18, 0x81, "DS", echo == 1 ? "10" : "25.5");
    dicom_text(&dicom, 0x20, 0x0d, "UI", "1.2.826.0.1.3680043.8.498.3");
    dicom_text(&dicom, 0x20, 0x0e, "UI", "1.2.826.0.1.3680043.8.498.4");
    dicom_text(&dicom, 0x20, 0x11, "IS", "1");
    snprintf(text, sizeof text, "%d", slice + 1);
    dicom_text(&dicom, 0x20, 0x13, "IS", text);
    snprintf(text, sizeof text, "-10\\-20\\%.1f", 30 + 2.5 * slice);
    dicom_text(&dicom, 0x20, 0x32, "DS", text);
    dicom_text(&dicom, 0x20, 0x37, "DS", "1\\0\\0\\0\\1\\0");
    dicom_text(&dicom, 0x20, 0x52, "UI", "1.2.826.0.1.3680043.8.498.5");
    dicom_short(&dicom, 0x28, 2, 1);
    dicom_text(&dicom, 0x28, 4, "CS", "MONOCHROME2");
    dicom_short(&dicom, 0x28, 0x10, STUDY_ROWS);
    dicom_short(&dicom, 0x28, 0x11, STUDY_COLUMNS);
    /* Row spacing first (PS3.3, 10.7.1.3). */
    dicom_text(&dicom, 0x28, 0x30, "DS", "0.75\\0.5");
    dicom_short(&dicom, 0x28, 0x100, 16);
    dicom_short(&dicom, 0x28, 0x101, 16);
    dicom_short(&dicom, 0x28, 0x102, 15);
    dicom_short(&dicom, 0x28, 0x103, 0);
    for (row = 0; row < STUDY_ROWS; row++) {
        for (column = 0; column < STUDY_COLUMNS; column++) {
            int voxel = study_voxel(column, row, slice) + (echo == 2 ? 1000 : 0), at = 2 * (row * STUDY_COLUMNS + column);
            pixels[at] = (unsigned char)voxel;
            pixels[at + 1] = (unsigned char)(voxel >> 8);
        }
    }
    dicom_element(&dicom, 0x7fe0, 0x10, "OW", pixels, sizeof pixels);
    return dicom;
}

static struct dicom study_slice(int slice)
{
    return study_echo(slice, 0);
}

/* The study as a folder of files, in an order that is not the slices'. */
static void study_write(const char *folder)
{
    static const char *const names[STUDY_SLICES] = {"c", "a", "d.dcm", "b"};
    int slice;
    check_mkdir(folder);
    for (slice = 0; slice < STUDY_SLICES; slice++) {
        struct dicom dicom = study_slice(slice);
        check_write(check_path(folder, names[slice]), dicom.bytes, dicom.size);
    }
}

static void site_unused(void) __attribute__((unused));
static void site_unused(void)
{
    (void)site_open; (void)site_close; (void)site_config; (void)study_write; (void)study_slice; (void)site_unused;
}

#endif
