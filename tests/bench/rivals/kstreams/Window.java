import java.nio.ByteBuffer;
import java.nio.LongBuffer;

/**
 * The events of a lead and type that may still count, as RocksDB keeps them: pairs of a time and a hash of the id, by time.
 * Those older than the window of the latest that may come go.
 */
record Window(byte[] kept, int count) {
    private static final int ENTRY = 16;

    /** With one event more, and how many there are in its window; a known event leaves the window as it is. */
    static Window with(byte[] old, long at, long id, long windowMs, long latenessMs) {
        int size = old == null ? 0 : old.length / ENTRY;
        LongBuffer entries = old == null ? null : ByteBuffer.wrap(old).asLongBuffer();
        int count = 0;
        boolean known = false;
        for (int n = 0; n < size; n++) {
            long time = entries.get(2 * n);
            known |= entries.get(2 * n + 1) == id;
            count += time > at - windowMs && time <= at ? 1 : 0;
        }
        if (known) {
            return new Window(old, count);
        }
        return new Window(inserted(old, entries, size, at, id, windowMs + latenessMs), count + 1);
    }

    private static byte[] inserted(byte[] old, LongBuffer entries, int size, long at, long id, long reach) {
        long newest = size > 0 ? Math.max(at, entries.get(2 * (size - 1))) : at;
        int from = 0;
        while (from < size && entries.get(2 * from) < newest - reach) {
            from++;
        }
        int place = size;
        while (place > from && entries.get(2 * (place - 1)) > at) {
            place--;
        }
        ByteBuffer kept = ByteBuffer.allocate((size - from + 1) * ENTRY);
        if (place > from) {
            kept.put(old, from * ENTRY, (place - from) * ENTRY);
        }
        kept.putLong(at).putLong(id);
        if (size > place) {
            kept.put(old, place * ENTRY, (size - place) * ENTRY);
        }
        return kept.array();
    }

    /** FNV-1a of 64 bits. */
    static long hash(String id) {
        long hash = 0xcbf29ce484222325L;
        for (int n = 0; n < id.length(); n++) {
            hash = (hash ^ id.charAt(n)) * 0x100000001b3L;
        }
        return hash;
    }
}
