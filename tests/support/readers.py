"""A program with large results to read, for those who keep it from reading them."""

RESULT_BYTES = 60_000

#: arguments: the cluster, a file that gets a byte for each execution, how many tasks
PROGRAM = f"""
import os, sys, time
import drumbeat

@drumbeat.remote
def large(number):
    time.sleep(0.001)
    log = os.open(LOG, os.O_WRONLY | os.O_APPEND)
    os.write(log, b"x")
    os.close(log)
    return number.to_bytes(4, "big") * {RESULT_BYTES // 4}

LOG, TASKS = sys.argv[2], int(sys.argv[3])
with drumbeat.init(sys.argv[1]):
    refs = [large.remote(number) for number in range(TASKS)]
    print("submitted", flush=True)
    values = drumbeat.get(refs)
    right = all(value[:4] == n.to_bytes(4, "big") for n, value in enumerate(values))
    print(right, sum(map(len, values)), flush=True)
"""
