"""The closed vocabularies of the generated corpora: seven languages, the same things in the same order.

Position i of a list means the same thing in every language, which is what makes translation a look-up. Words stand
in the one grammatical form that the sentences of `phrases.py` need (French countries carry their article, Russian
countries are in the genitive), so that every generated sentence is correct. Imports nothing.
"""

from dataclasses import dataclass

__all__ = ["CATEGORIES", "COLOUR_OF", "LANGUAGES", "WORDS", "Words"]

LANGUAGES = ("en", "de", "es", "fr", "ru", "zh", "ar")
"""ISO 639-1 codes; three scripts besides Latin."""

CATEGORIES = {"animal": range(0, 8), "fruit": range(8, 14), "colour": range(14, 20), "thing": range(20, 26)}
"""Where the nouns of a category stand in `Words.nouns`; nobody is asked for a `thing`, they only distract."""

COLOUR_OF = (4, 4, 5, 5, 2, 2, 0, 0, 1, 1, 3, 3)
"""Colour of each item of `Words.coloured`, as a position in `Words.colours`."""


@dataclass(frozen=True, kw_only=True)
class Words:
    """The vocabulary of one language."""

    names: tuple[str, ...]
    nouns: tuple[str, ...]
    categories: tuple[str, str, str]
    opposites: tuple[tuple[str, str], ...]
    countries: tuple[tuple[str, str], ...]
    """Country as it stands after "capital of", and its capital."""
    coloured: tuple[str, ...]
    colours: tuple[str, ...]
    """Red, blue, green, yellow, white, black."""
    days: tuple[str, ...]
    """Monday to Sunday."""
    in_language: tuple[str, ...]
    """ "in English" and so on, in the order of `LANGUAGES`."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(","))


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    first_second = [pair.split("/") for pair in _words(text)]
    return tuple((first, second) for first, second in first_second)


WORDS = {
    "en": Words(
        names=_words(
            "Alice, Ben, Chloe, Dan, Emily, Frank, Grace, Henry, Ivy, Jack, Kate, Luke, Molly, Oliver, Rose, Tom"
        ),
        nouns=_words(
            "dog, cat, horse, bird, fish, cow, mouse, lion, apple, pear, lemon, banana, orange, peach,"
            "red, blue, green, yellow, white, black, house, table, book, door, car, chair"
        ),
        categories=("an animal", "a fruit", "a colour"),
        opposites=_pairs(
            "big/small, hot/cold, old/new, long/short, good/bad, fast/slow, high/low,"
            "full/empty, hard/soft, strong/weak, rich/poor, clean/dirty, wet/dry, thick/thin"
        ),
        countries=_pairs(
            "Spain/Madrid, France/Paris, Germany/Berlin, Italy/Rome, Russia/Moscow, China/Beijing, Japan/Tokyo,"
            "Egypt/Cairo, Greece/Athens, Poland/Warsaw, Portugal/Lisbon, Austria/Vienna, Norway/Oslo, Peru/Lima,"
            "Cuba/Havana, Ireland/Dublin"
        ),
        coloured=_words(
            "snow, milk, coal, the night, grass, a frog, blood, a tomato, the sky, the sea, the sun, a lemon"
        ),
        colours=_words("red, blue, green, yellow, white, black"),
        days=_words("Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday"),
        in_language=_words("in English, in German, in Spanish, in French, in Russian, in Chinese, in Arabic"),
    ),
    "de": Words(
        names=_words(
            "Anke, Bernd, Greta, Dieter, Elke, Fritz, Heike, Jonas, Karin, Lukas, Monika, Otto, Petra, Rolf, Silke,Uwe"
        ),
        nouns=_words(
            "Hund, Katze, Pferd, Vogel, Fisch, Kuh, Maus, Löwe, Apfel, Birne, Zitrone, Banane, Orange, Pfirsich,"
            "rot, blau, grün, gelb, weiß, schwarz, Haus, Tisch, Buch, Tür, Auto, Stuhl"
        ),
        categories=("ein Tier", "eine Frucht", "eine Farbe"),
        opposites=_pairs(
            "groß/klein, heiß/kalt, alt/neu, lang/kurz, gut/schlecht, schnell/langsam, hoch/niedrig,"
            "voll/leer, hart/weich, stark/schwach, reich/arm, sauber/schmutzig, nass/trocken, dick/dünn"
        ),
        countries=_pairs(
            "Spanien/Madrid, Frankreich/Paris, Deutschland/Berlin, Italien/Rom, Russland/Moskau, China/Peking,"
            "Japan/Tokio, Ägypten/Kairo, Griechenland/Athen, Polen/Warschau, Portugal/Lissabon, Österreich/Wien,"
            "Norwegen/Oslo, Peru/Lima, Kuba/Havanna, Irland/Dublin"
        ),
        coloured=_words(
            "Schnee, Milch, Kohle, die Nacht, Gras, ein Frosch, Blut, eine Tomate, der Himmel, das Meer,"
            "die Sonne, eine Zitrone"
        ),
        colours=_words("rot, blau, grün, gelb, weiß, schwarz"),
        days=_words("Montag, Dienstag, Mittwoch, Donnerstag, Freitag, Samstag, Sonntag"),
        in_language=_words(
            "auf Englisch, auf Deutsch, auf Spanisch, auf Französisch, auf Russisch, auf Chinesisch, auf Arabisch"
        ),
    ),
    "es": Words(
        names=_words(
            "Ana, Bruno, Carmen, Diego, Elena, Felipe, Inés, Javier, Lola, Mateo, Nuria, Pablo, Rosa, Sergio, Teresa,"
            "Hugo"
        ),
        nouns=_words(
            "perro, gato, caballo, pájaro, pez, vaca, ratón, león, manzana, pera, limón, plátano, naranja, melocotón,"
            "rojo, azul, verde, amarillo, blanco, negro, casa, mesa, libro, puerta, coche, silla"
        ),
        categories=("un animal", "una fruta", "un color"),
        opposites=_pairs(
            "grande/pequeño, caliente/frío, viejo/nuevo, largo/corto, bueno/malo, rápido/lento, alto/bajo,"
            "lleno/vacío, duro/blando, fuerte/débil, rico/pobre, limpio/sucio, mojado/seco, grueso/fino"
        ),
        countries=_pairs(
            "España/Madrid, Francia/París, Alemania/Berlín, Italia/Roma, Rusia/Moscú, China/Pekín, Japón/Tokio,"
            "Egipto/El Cairo, Grecia/Atenas, Polonia/Varsovia, Portugal/Lisboa, Austria/Viena, Noruega/Oslo,"
            "Perú/Lima, Cuba/La Habana, Irlanda/Dublín"
        ),
        coloured=_words(
            "la nieve, la leche, el carbón, la noche, la hierba, la rana, la sangre, el tomate, el cielo, el mar,"
            "el sol, el limón"
        ),
        colours=_words("rojo, azul, verde, amarillo, blanco, negro"),
        days=_words("lunes, martes, miércoles, jueves, viernes, sábado, domingo"),
        in_language=_words("en inglés, en alemán, en español, en francés, en ruso, en chino, en árabe"),
    ),
    "fr": Words(
        names=_words(
            "Amélie, Bastien, Camille, Denis, Élodie, François, Gaëlle, Julien, Léa, Mathieu, Nathalie, Olivier,"
            "Pauline, Rémi, Sophie, Yves"
        ),
        nouns=_words(
            "chien, chat, cheval, oiseau, poisson, vache, souris, lion, pomme, poire, citron, banane, orange, pêche,"
            "rouge, bleu, vert, jaune, blanc, noir, maison, table, livre, porte, voiture, chaise"
        ),
        categories=("un animal", "un fruit", "une couleur"),
        opposites=_pairs(
            "grand/petit, chaud/froid, vieux/nouveau, long/court, bon/mauvais, rapide/lent, haut/bas,"
            "plein/vide, dur/mou, fort/faible, riche/pauvre, propre/sale, mouillé/sec, épais/mince"
        ),
        countries=_pairs(
            "de l'Espagne/Madrid, de la France/Paris, de l'Allemagne/Berlin, de l'Italie/Rome, de la Russie/Moscou,"
            "de la Chine/Pékin, du Japon/Tokyo, de l'Égypte/Le Caire, de la Grèce/Athènes, de la Pologne/Varsovie,"
            "du Portugal/Lisbonne, de l'Autriche/Vienne, de la Norvège/Oslo, du Pérou/Lima, de Cuba/La Havane,"
            "de l'Irlande/Dublin"
        ),
        coloured=_words(
            "la neige, le lait, le charbon, la nuit, l'herbe, la grenouille, le sang, la tomate, le ciel, la mer,"
            "le soleil, le citron"
        ),
        colours=_words("rouge, bleu, vert, jaune, blanc, noir"),
        days=_words("lundi, mardi, mercredi, jeudi, vendredi, samedi, dimanche"),
        in_language=_words("en anglais, en allemand, en espagnol, en français, en russe, en chinois, en arabe"),
    ),
    "ru": Words(
        names=_words(
            "Анна, Борис, Вера, Глеб, Дарья, Егор, Зоя, Иван, Катя, Леонид, Мария, Никита, Ольга, Павел, Света, Юрий"
        ),
        nouns=_words(
            "собака, кошка, лошадь, птица, рыба, корова, мышь, лев, яблоко, груша, лимон, банан, апельсин, персик,"
            "красный, синий, зелёный, жёлтый, белый, чёрный, дом, стол, книга, дверь, машина, стул"
        ),
        categories=("животное", "фрукт", "цвет"),
        opposites=_pairs(
            "большой/маленький, горячий/холодный, старый/новый, длинный/короткий, хороший/плохой, быстрый/медленный,"
            "высокий/низкий, полный/пустой, твёрдый/мягкий, сильный/слабый, богатый/бедный, чистый/грязный,"
            "мокрый/сухой, толстый/тонкий"
        ),
        countries=_pairs(
            "Испании/Мадрид, Франции/Париж, Германии/Берлин, Италии/Рим, России/Москва, Китая/Пекин, Японии/Токио,"
            "Египта/Каир, Греции/Афины, Польши/Варшава, Португалии/Лиссабон, Австрии/Вена, Норвегии/Осло,"
            "Перу/Лима, Кубы/Гавана, Ирландии/Дублин"
        ),
        coloured=_words("снег, молоко, уголь, ночь, трава, лягушка, кровь, помидор, небо, море, солнце, лимон"),
        colours=_words("красный, синий, зелёный, жёлтый, белый, чёрный"),
        days=_words("понедельник, вторник, среда, четверг, пятница, суббота, воскресенье"),
        in_language=_words("по-английски, по-немецки, по-испански, по-французски, по-русски, по-китайски, по-арабски"),
    ),
    "zh": Words(
        names=_words("小明, 小红, 小华, 小丽, 小刚, 小芳, 小强, 小梅, 小军, 小云, 小龙, 小雪, 小杰, 小燕, 小兰, 小文"),
        nouns=_words(
            "狗, 猫, 马, 鸟, 鱼, 牛, 老鼠, 狮子, 苹果, 梨, 柠檬, 香蕉, 橙子, 桃子,"
            "红色, 蓝色, 绿色, 黄色, 白色, 黑色, 房子, 桌子, 书, 门, 汽车, 椅子"
        ),
        categories=("动物", "水果", "颜色"),
        opposites=_pairs(
            "大/小, 热/冷, 旧/新, 长/短, 好/坏, 快/慢, 高/低, 满/空, 硬/软, 强/弱, 富/穷, 干净/脏, 湿/干, 厚/薄"
        ),
        countries=_pairs(
            "西班牙/马德里, 法国/巴黎, 德国/柏林, 意大利/罗马, 俄罗斯/莫斯科, 中国/北京, 日本/东京, 埃及/开罗,"
            "希腊/雅典, 波兰/华沙, 葡萄牙/里斯本, 奥地利/维也纳, 挪威/奥斯陆, 秘鲁/利马, 古巴/哈瓦那, 爱尔兰/都柏林"
        ),
        coloured=_words("雪, 牛奶, 煤, 黑夜, 草, 青蛙, 血, 番茄, 天空, 大海, 太阳, 柠檬"),
        colours=_words("红色, 蓝色, 绿色, 黄色, 白色, 黑色"),
        days=_words("星期一, 星期二, 星期三, 星期四, 星期五, 星期六, 星期日"),
        in_language=_words("英语, 德语, 西班牙语, 法语, 俄语, 汉语, 阿拉伯语"),
    ),
    "ar": Words(
        names=_words("ليلى, كريم, سلمى, عمر, نور, يوسف, هند, سامي, مريم, خالد, رنا, طارق, دينا, فارس, هدى, زياد"),
        nouns=_words(
            "كلب, قطة, حصان, طائر, سمكة, بقرة, فأر, أسد, تفاحة, كمثرى, ليمونة, موزة, برتقالة, خوخة,"
            "أحمر, أزرق, أخضر, أصفر, أبيض, أسود, بيت, طاولة, كتاب, باب, سيارة, كرسي"
        ),
        categories=("حيوان", "فاكهة", "لون"),
        opposites=_pairs(
            "كبير/صغير, حار/بارد, قديم/جديد, طويل/قصير, جيد/سيئ, سريع/بطيء, مرتفع/منخفض,"
            "ممتلئ/فارغ, صلب/لين, قوي/ضعيف, غني/فقير, نظيف/متسخ, رطب/جاف, سميك/رقيق"
        ),
        countries=_pairs(
            "إسبانيا/مدريد, فرنسا/باريس, ألمانيا/برلين, إيطاليا/روما, روسيا/موسكو, الصين/بكين, اليابان/طوكيو,"
            "مصر/القاهرة, اليونان/أثينا, بولندا/وارسو, البرتغال/لشبونة, النمسا/فيينا, النرويج/أوسلو, بيرو/ليما,"
            "كوبا/هافانا, أيرلندا/دبلن"
        ),
        coloured=_words("الثلج, الحليب, الفحم, الليل, العشب, الضفدع, الدم, الطماطم, السماء, البحر, الشمس, الليمون"),
        colours=_words("أحمر, أزرق, أخضر, أصفر, أبيض, أسود"),
        days=_words("الاثنين, الثلاثاء, الأربعاء, الخميس, الجمعة, السبت, الأحد"),
        in_language=_words("بالإنجليزية, بالألمانية, بالإسبانية, بالفرنسية, بالروسية, بالصينية, بالعربية"),
    ),
}
