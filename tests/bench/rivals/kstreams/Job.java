import java.io.File;
import java.net.URI;
import java.time.Duration;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.api.ProcessorSupplier;
import org.apache.kafka.streams.state.Stores;

/**
 * The worker's job done by Kafka Streams: windows in RocksDB with a changelog, attribute filters, rows copied into Postgres in each
 * commit, verdicts to the enriched topic.  It runs until SIGTERM; what it needs stands in the environment.
 */
public final class Job {
    private static final Map<String, String> GIVEN = System.getenv();

    public static void main(String[] arguments) throws Exception {
        Rules rules = Rules.read(new File(GIVEN.get("RULES")));
        KafkaStreams streams = new KafkaStreams(topology(rules), settings());
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            Runtime.getRuntime().halt(1);
            return null;
        });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(Duration.ofSeconds(10))));
        streams.start();
        Thread.currentThread().join();
    }

    private static Topology topology(Rules rules) {
        ProcessorSupplier<String, byte[], String, byte[]> judge = () -> new Judge(rules);
        return new Topology()
            .addSource("raw", new StringDeserializer(), new ByteArrayDeserializer(), GIVEN.get("RAW_TOPIC"))
            .addProcessor("judge", judge, "raw")
            .addStateStore(
                Stores.keyValueStoreBuilder(
                    Stores.persistentKeyValueStore(Judge.WINDOWS), Serdes.String(), Serdes.ByteArray())
                .withCachingEnabled()
                .withLoggingEnabled(Map.of()), "judge")
            .addStateStore(new Rows.Builder(URI.create(GIVEN.get("DATABASE_URL"))), "judge")
            .addSink("enriched", GIVEN.get("ENRICHED_TOPIC"), new StringSerializer(), new ByteArraySerializer(), "judge");
    }

    private static Properties settings() {
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, GIVEN.get("CONSUMER_GROUP"));
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, GIVEN.get("KAFKA_BOOTSTRAP_SERVERS"));
        settings.put(StreamsConfig.STATE_DIR_CONFIG, GIVEN.get("STATE_FOLDER"));
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, GIVEN.get("GUARANTEE"));
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, GIVEN.get("COMMIT_MS"));
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 4);
        settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        settings.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 64L << 20);
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), 4_000);
        settings.put(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), 256 << 10);
        settings.put(StreamsConfig.producerPrefix(ProducerConfig.LINGER_MS_CONFIG), GIVEN.get("LINGER_MS"));
        return settings;
    }
}
