/*
 * SEV-SNP: what svm/sev.c and the firmware answer until the launch is final
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "standin.h"

#define POLICY_MUST_BE_ONE  (1ULL << 17)
#define SECRETS_BYTE        0x5e
#define CPUID_ENTRY_EAX     (16 + 24)   /* of the first entry */
#define INVALID_PARAM       0x16
#define BLOB_SIZE           16

/* At first without room, and then with as much as it takes. */
static int give(struct sev_issue_cmd *arg, uint64_t to, __u32 *length)
{
    if (*length < BLOB_SIZE) {
        *length = BLOB_SIZE;
        arg->error = SEV_RET_INVALID_LEN;
        return -EIO;
    }
    memset((void *)(uintptr_t)to, 0, BLOB_SIZE);
    return 0;
}

/* For query-sev-capabilities, of which libvirt asks. */
static int capabilities(struct sev_issue_cmd *arg)
{
    void *data = (void *)(uintptr_t)arg->data;
    struct sev_user_data_pdh_cert_export *pdh = data;
    struct sev_user_data_get_id2 *id = data;
    __u32 length;
    int result;

    arg->error = SEV_RET_UNSUPPORTED;
    if (arg->cmd == SEV_GET_ID2) {
        length = id->length;
        result = give(arg, id->address, &length);
        id->length = length;
        return result;
    }
    if (arg->cmd != SEV_PDH_CERT_EXPORT) {
        return -EIO;
    }
    length = pdh->pdh_cert_len;
    result = give(arg, pdh->pdh_cert_address, &length);
    pdh->pdh_cert_len = length;
    length = pdh->cert_chain_len;
    result = give(arg, pdh->cert_chain_address, &length) ?: result;
    pdh->cert_chain_len = length;
    return result;
}

int sev_issue(struct sev_issue_cmd *arg)
{
    Injected failure = { 0 };
    struct sev_user_data_status *status = (void *)(uintptr_t)arg->data;

    if (arg->cmd != SEV_PLATFORM_STATUS) {
        return capabilities(arg);
    }
    failure = inject("SEV_PLATFORM_STATUS");
    arg->error = failure.firmware;
    record("SEV_PLATFORM_STATUS = %s", errno_name(failure.error));
    if (failure.error) {
        return -failure.error;
    }
    *status = (struct sev_user_data_status) {
        .api_major = 1, .api_minor = 55, .state = 1, .build = 21,
    };
    return 0;
}

static int init2(const struct kvm_sev_init *arg)
{
    return vm.phase != PHASE_NEW || arg->flags || arg->vmsa_features ?
           -EINVAL : 0;
}

static int launch_start(const struct kvm_sev_snp_launch_start *arg)
{
    return vm.phase != PHASE_INIT || arg->flags ||
           !(arg->policy & POLICY_MUST_BE_ONE) ? -EINVAL : 0;
}

static const char *type_name(unsigned type)
{
    static const char *const names[] = {
        [KVM_SEV_SNP_PAGE_TYPE_NORMAL] = "NORMAL",
        [KVM_SEV_SNP_PAGE_TYPE_ZERO] = "ZERO",
        [KVM_SEV_SNP_PAGE_TYPE_UNMEASURED] = "UNMEASURED",
        [KVM_SEV_SNP_PAGE_TYPE_SECRETS] = "SECRETS",
        [KVM_SEV_SNP_PAGE_TYPE_CPUID] = "CPUID",
    };

    return type < ARRAY_SIZE(names) && names[type] ? names[type] : "?";
}

static bool update_malformed(const struct kvm_sev_snp_launch_update *arg)
{
    Slot *slot = slot_of(arg->gfn_start * PAGE);

    if (vm.phase < PHASE_LAUNCH || !arg->len || arg->len % PAGE ||
        arg->flags || !strcmp(type_name(arg->type), "?")) {
        return true;
    }
    if (arg->type != KVM_SEV_SNP_PAGE_TYPE_ZERO &&
        (arg->uaddr % PAGE || (!arg->uaddr && !vm.in_place))) {
        return true;
    }
    return !slot || !slot->gmem;
}

/* Contents that are the firmware's own. */
static void firmware_writes(unsigned type, uint64_t gpa, uint64_t size)
{
    if (type == KVM_SEV_SNP_PAGE_TYPE_ZERO &&
        !hidden_fill(gpa, 0, size)) {
        abort();
    }
    if (type == KVM_SEV_SNP_PAGE_TYPE_SECRETS &&
        !hidden_fill(gpa, SECRETS_BYTE, size)) {
        abort();
    }
}

/*
 * The firmware's table of CPUID: what it would accept is in the page, which
 * is not encrypted, and in the source if there is one.
 */
static void correct_cpuid(uint64_t gpa, uint8_t *source)
{
    uint8_t table[PAGE] QEMU_ALIGNED(4096);

    if (source) {
        source[CPUID_ENTRY_EAX] ^= 1;
    } else if (hidden_read(table, gpa, PAGE)) {
        table[CPUID_ENTRY_EAX] ^= 1;
        hidden_copy(gpa, table, PAGE);
    }
}

static int launch_update(struct kvm_sev_snp_launch_update *arg,
                         struct kvm_sev_cmd *cmd, Injected failure)
{
    bool zero = arg->type == KVM_SEV_SNP_PAGE_TYPE_ZERO;
    void *source = zero ? NULL : (void *)(uintptr_t)arg->uaddr;
    uint64_t gpa = arg->gfn_start * PAGE, digest = 0;
    int64_t pages;

    if (update_malformed(arg)) {
        return -EINVAL;
    }
    if (failure.error) {
        if (arg->type == KVM_SEV_SNP_PAGE_TYPE_CPUID &&
            failure.firmware == INVALID_PARAM) {
            correct_cpuid(gpa, source);
        }
        return -failure.error;
    }
    pages = memory_populate(gpa, source, arg->len / PAGE, &digest);
    if (pages < 0) {
        return -EIO;
    }
    firmware_writes(arg->type, gpa, pages * PAGE);
    memory_measure(gpa, arg->type,
                   arg->type == KVM_SEV_SNP_PAGE_TYPE_NORMAL ? digest : 0);
    arg->gfn_start += pages;
    arg->len -= pages * PAGE;
    arg->uaddr += source ? pages * PAGE : 0;
    return 0;
}

static int update_command(struct kvm_sev_cmd *cmd, Injected failure)
{
    struct kvm_sev_snp_launch_update *arg = (void *)(uintptr_t)cmd->data;
    uint64_t gfn = arg->gfn_start, len = arg->len;
    bool source = arg->uaddr &&
                  arg->type != KVM_SEV_SNP_PAGE_TYPE_ZERO;
    int result = launch_update(arg, cmd, failure);

    record("SNP_LAUNCH_UPDATE gfn=0x%" PRIx64 " len=0x%" PRIx64 " type=%s "
           "source=%d left=0x%llx measurement=%016" PRIx64 " = %s", gfn, len,
           type_name(arg->type), source, result ? len : arg->len,
           vm.measurement, errno_name(-result));
    if (result && !failure.error) {
        unlawful("SNP_LAUNCH_UPDATE");
    }
    return result;
}

/* The other commands of a launch have only their order. */
static int step(const char *name, int error, Injected failure, Phase phase)
{
    if (error) {
        unlawful("%s in phase %u", name, vm.phase);
    } else {
        error = -failure.error;
        vm.phase = error ? vm.phase : phase;
    }
    record("%s = %s", name, errno_name(-error));
    return error;
}

static int launch_finish(const struct kvm_sev_snp_launch_finish *arg)
{
    return vm.phase != PHASE_LAUNCH || arg->flags ? -EINVAL : 0;
}

int snp_command(struct kvm_sev_cmd *cmd)
{
    void *data;
    Injected failure;

    if (!cmd) {
        return 0;
    }
    data = (void *)(uintptr_t)cmd->data;
    if (cmd->sev_fd != vm.sev_fd) {
        unlawful("command %u without /dev/sev", cmd->id);
        return -EBADF;
    }
    failure = inject(cmd->id == KVM_SEV_INIT2 ? "SEV_INIT2" :
                     cmd->id == KVM_SEV_SNP_LAUNCH_START ?
                     "SNP_LAUNCH_START" :
                     cmd->id == KVM_SEV_SNP_LAUNCH_UPDATE ?
                     "SNP_LAUNCH_UPDATE" : "SNP_LAUNCH_FINISH");
    cmd->error = failure.firmware;
    switch (cmd->id) {
    case KVM_SEV_INIT2:
        return step("SEV_INIT2", init2(data), failure, PHASE_INIT);
    case KVM_SEV_SNP_LAUNCH_START:
        return step("SNP_LAUNCH_START", launch_start(data), failure,
                    PHASE_LAUNCH);
    case KVM_SEV_SNP_LAUNCH_UPDATE:
        return update_command(cmd, failure);
    case KVM_SEV_SNP_LAUNCH_FINISH:
        return step("SNP_LAUNCH_FINISH", launch_finish(data), failure,
                    PHASE_FINAL);
    default:
        unlawful("command %u of SEV", cmd->id);
        return -EINVAL;
    }
}
