import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import com.fasterxml.jackson.databind.ObjectWriter;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.time.Instant;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;

/** Gives each event its verdict, hands it to Postgres and sends it on. */
final class Judge implements Processor<String, byte[], String, byte[]> {
    static final String WINDOWS = "windows";
    private static final ObjectMapper JSON = new ObjectMapper();

    private final Rules rules;
    private final ObjectReader reader = JSON.readerFor(Event.class);
    private final ObjectWriter writer = JSON.writerFor(Event.class);
    private ProcessorContext<String, byte[]> context;
    private KeyValueStore<String, byte[]> windows;
    private Rows rows;

    Judge(Rules rules) {
        this.rules = rules;
    }

    @Override
    public void init(ProcessorContext<String, byte[]> given) {
        context = given;
        windows = given.getStateStore(WINDOWS);
        rows = given.getStateStore(Rows.NAME);
    }

    @Override
    public void process(Record<String, byte[]> record) {
        try {
            Event event = reader.readValue(record.value());
            if (!event.isComplete()) {
                return;
            }
            event.suppression_reason = reason(event);
            rows.add(event);
            context.forward(record.withValue(writer.writeValueAsBytes(event)));
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    private String reason(Event event) {
        Rules.Velocity velocity = rules.velocity().get(event.event_type);
        if (velocity != null && exceeds(event, velocity)) {
            return "inorganic";
        }
        return rules.match(event.metadata) ? "metadata_filter" : null;
    }

    private boolean exceeds(Event event, Rules.Velocity velocity) {
        String key = event.org_unit + "|" + event.lead_id + "|" + event.event_type;
        byte[] old = windows.get(key);
        long at = Instant.parse(event.created_at).toEpochMilli();
        Window window = Window.with(
            old, at, Window.hash(event.id), velocity.windowMs(), rules.latenessMs());
        if (window.kept() != old) {
            windows.put(key, window.kept());
        }
        return window.count() > velocity.threshold();
    }
}
